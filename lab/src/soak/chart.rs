//! The chart `soak.svg`: each metric over time.

use std::path::Path;

use anyhow::anyhow;
use plotters::prelude::*;

use super::{system::Sample, trend::STEADY};

const COLUMNS: usize = 3;
const PANEL: (u32, u32) = (330, 190);
const LINE: RGBColor = RGBColor(0x1f, 0x77, 0xb4);

/// Draws one panel for each metric of [`STEADY`] into an SVG file.
pub(super) fn draw(samples: &[Sample], file: &Path) -> anyhow::Result<()> {
    let rows = STEADY.len().div_ceil(COLUMNS);
    let size = |count: usize, of_each: u32| of_each * u32::try_from(count).unwrap_or(1);
    let size = (size(COLUMNS, PANEL.0), size(rows, PANEL.1));
    let root = SVGBackend::new(file, size).into_drawing_area();
    try_draw(&root, rows, samples)
        .map_err(|error| anyhow!("cannot draw {}: {error}", file.display()))
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

fn try_draw(
    root: &Area<'_>,
    rows: usize,
    samples: &[Sample],
) -> Result<(), Box<dyn std::error::Error>> {
    root.fill(&WHITE)?;
    for (area, steady) in root.split_evenly((rows, COLUMNS)).iter().zip(&STEADY) {
        let points: Vec<(f64, f64)> = samples
            .iter()
            .map(|sample| (sample.minutes, (steady.of)(sample)))
            .collect();
        let high = points.iter().map(|point| point.1).fold(0.0, f64::max);
        let end = points.last().map_or(1.0, |point| point.0);
        // The axis starts at zero, so that noise does not look like a trend.
        let top = if high > 0.0 { high * 1.2 } else { 1.0 };
        let mut chart = ChartBuilder::on(area)
            .caption(steady.name, ("sans-serif", 14))
            .margin(8)
            .x_label_area_size(28)
            .y_label_area_size(48)
            .build_cartesian_2d(0.0..end, 0.0..top)?;
        chart
            .configure_mesh()
            .x_desc("minutes")
            .x_labels(5)
            .y_labels(4)
            .light_line_style(WHITE)
            .draw()?;
        chart.draw_series(LineSeries::new(points, LINE.stroke_width(2)))?;
    }
    root.present()?;
    Ok(())
}
