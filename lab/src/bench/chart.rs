//! The chart `bench.svg`: throughput and p99 latency over the number of connections.
//!
//! It compares a transaction per booking with group commit.

use std::path::Path;

use anyhow::anyhow;
use plotters::prelude::*;

use super::report::{Case, Measured, Report};

const ONE_BY_ONE: RGBColor = RGBColor(0xb0, 0x58, 0x3a);
const GROUPED: RGBColor = RGBColor(0x1f, 0x77, 0xb4);
const LIMIT: RGBColor = RGBColor(0x77, 0x77, 0x77);

/// Draws the cases of the mode `hot` into an SVG file.
pub(super) fn draw(report: &Report, file: &Path) -> anyhow::Result<()> {
    let root = SVGBackend::new(file, (960, 400)).into_drawing_area();
    let hot: Vec<&Case> = report
        .cases
        .iter()
        .filter(|case| case.mode == "hot")
        .collect();
    try_draw(&root, &hot, report.database_alone())
        .map_err(|error| anyhow!("cannot draw {}: {error}", file.display()))
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

fn try_draw(root: &Area<'_>, hot: &[&Case], limit: f64) -> Result<(), Box<dyn std::error::Error>> {
    root.fill(&WHITE)?;
    let (left, right) = root.split_horizontally(480);
    panel(
        &left,
        hot,
        "bookings/s on one show",
        |m| m.bookings_per_second,
        Some(limit),
    )?;
    panel(&right, hot, "p99 latency, ms", |m| m.p99_ms, None)?;
    root.present()?;
    Ok(())
}

fn panel(
    area: &Area<'_>,
    hot: &[&Case],
    title: &str,
    value: fn(&Measured) -> f64,
    limit: Option<f64>,
) -> Result<(), Box<dyn std::error::Error>> {
    let points = |of: fn(&Case) -> Measured| -> Vec<(f64, f64)> {
        hot.iter()
            .map(|case| (f64::from(case.connections), value(&of(case))))
            .collect()
    };
    let (one, grouped) = (points(Case::one_by_one), points(Case::grouped));
    let values = || one.iter().chain(&grouped).map(|point| point.1).chain(limit);
    let (low, high) = (
        values().fold(f64::INFINITY, f64::min) / 1.5,
        values().fold(0.0, f64::max) * 1.5,
    );
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d((0.9..600.0).log_scale(), (low..high).log_scale())?;
    chart
        .configure_mesh()
        .x_desc("connections")
        .x_label_formatter(&|x| format!("{x:.0}"))
        .y_label_formatter(&|y| format!("{y:.0}"))
        .light_line_style(WHITE)
        .draw()?;
    for (points, color, name) in [
        (one, ONE_BY_ONE, "a transaction per booking"),
        (grouped, GROUPED, "group commit"),
    ] {
        chart
            .draw_series(LineSeries::new(points.clone(), color.stroke_width(2)))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
        chart.draw_series(
            points
                .into_iter()
                .map(|point| Circle::new(point, 3, color.filled())),
        )?;
    }
    if let Some(limit) = limit {
        chart
            .draw_series(LineSeries::new([(0.9, limit), (600.0, limit)], LIMIT))?
            .label("database alone, batches of 100")
            .legend(|(x, y)| PathElement::new([(x, y), (x + 18, y)], LIMIT));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::MiddleRight)
        .background_style(WHITE.mix(0.8))
        .draw()?;
    Ok(())
}
