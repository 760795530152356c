//! The chart `bench.svg`.
//!
//! Above: throughput and p99 latency over the number of connections, of a transaction per booking,
//! of group commit, and of the peer. Below: the processor time of a booking, and what is left of the
//! throughput under several circumstances.

use std::path::Path;

use anyhow::anyhow;
use plotters::prelude::*;

use super::report::{Case, Measured, Report};

const ONE_BY_ONE: RGBColor = RGBColor(0xb0, 0x58, 0x3a);
const GROUPED: RGBColor = RGBColor(0x1f, 0x77, 0xb4);
const PEER: RGBColor = RGBColor(0x2c, 0x8c, 0x4a);
const LOAD: RGBColor = RGBColor(0xc8, 0xc8, 0xc8);
const LIMIT: RGBColor = RGBColor(0x77, 0x77, 0x77);

/// Draws a report into an SVG file.
pub(super) fn draw(report: &Report, file: &Path) -> anyhow::Result<()> {
    let root = SVGBackend::new(file, (960, 800)).into_drawing_area();
    try_draw(&root, report).map_err(|error| anyhow!("cannot draw {}: {error}", file.display()))
}

type Drawn = Result<(), Box<dyn std::error::Error>>;

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

fn try_draw(root: &Area<'_>, report: &Report) -> Drawn {
    root.fill(&WHITE)?;
    let areas = root.split_evenly((2, 2));
    let cases = report.cases.iter();
    let hot: Vec<&Case> = cases.filter(|case| case.mode == "hot").collect();
    let limit = Some(report.database_alone());
    let rate = |m: &Measured| m.bookings_per_second;
    panel(&areas[0], &hot, "bookings/s on one show", rate, limit)?;
    panel(&areas[1], &hot, "p99 latency, ms", |m| m.p99_ms, None)?;
    costs(&areas[2], &report.cases)?;
    circumstances(&areas[3], report)?;
    root.present()?;
    Ok(())
}

fn panel(
    area: &Area<'_>,
    hot: &[&Case],
    title: &str,
    value: fn(&Measured) -> f64,
    limit: Option<f64>,
) -> Drawn {
    let points = |of: fn(&Case) -> Option<Measured>| -> Vec<(f64, f64)> {
        hot.iter()
            .filter_map(|case| Some((f64::from(case.connections), value(&of(case)?))))
            .collect()
    };
    let one = points(|case| Some(case.one_by_one()));
    let grouped = points(|case| Some(case.grouped()));
    let peer = points(Case::peer);
    let all = || one.iter().chain(&grouped).chain(&peer);
    let values = || all().map(|point| point.1).chain(limit);
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
        (peer, PEER, "Redis behind a thin server"),
    ] {
        if points.is_empty() {
            continue;
        }
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

/// A bar: its name, and the values and colours of its parts.
type Bar = (String, Vec<(f64, RGBColor)>);

/// Draws the processor time of a booking by program, with group commit.
fn costs(area: &Area<'_>, cases: &[Case]) -> Drawn {
    let bars = cases.iter().map(|case| {
        let cost = case.grouped().cost;
        let parts = vec![
            (cost.api_micros, GROUPED),
            (cost.database_micros, ONE_BY_ONE),
            (cost.load_micros, LOAD),
        ];
        (format!("{} {}", case.mode, case.connections), parts)
    });
    let names = [
        ("api", GROUPED),
        ("PostgreSQL", ONE_BY_ONE),
        ("load tool", LOAD),
    ];
    let title = "processor time of a booking, µs";
    bar_chart(area, title, &bars.collect::<Vec<_>>(), &names, 0)
}

/// Draws the rates of the comparisons, relative to those without their circumstance.
fn circumstances(area: &Area<'_>, report: &Report) -> Drawn {
    let bars = report.comparisons.iter().map(|compared| {
        (
            compared.circumstance.to_owned(),
            vec![(compared.ratio(), GROUPED)],
        )
    });
    let title = "bookings/s, relative to those without";
    bar_chart(area, title, &bars.collect::<Vec<_>>(), &[], 2)
}

/// Draws horizontal bars, the first one on top, each with its sum.
fn bar_chart(
    area: &Area<'_>,
    title: &str,
    bars: &[Bar],
    names: &[(&str, RGBColor)],
    decimals: usize,
) -> Drawn {
    let sum = |parts: &[(f64, RGBColor)]| parts.iter().map(|part| part.0).sum::<f64>();
    let longest = bars.iter().map(|bar| sum(&bar.1)).fold(0.0, f64::max);
    let rows = i32::try_from(bars.len())?;
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(30)
        .y_label_area_size(0)
        .build_cartesian_2d(0.0..longest * 1.2, 0..rows * 4)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .disable_y_axis()
        .light_line_style(WHITE)
        .draw()?;
    for ((name, parts), row) in bars.iter().zip((0..rows).rev()) {
        let mut left = 0.0;
        for (value, color) in parts {
            let corners = [(left, row * 4), (left + value, row * 4 + 2)];
            chart.draw_series([Rectangle::new(corners, color.filled())])?;
            left += value;
        }
        let text = format!("{name}: {left:.decimals$}");
        chart.draw_series([Text::new(text, (0.0, row * 4 + 4), ("sans-serif", 13))])?;
    }
    for &(name, color) in names {
        chart
            .draw_series(std::iter::empty::<Circle<(f64, i32), i32>>())?
            .label(name)
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 12, y + 5)], color.filled()));
    }
    if !names.is_empty() {
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .background_style(WHITE.mix(0.8))
            .draw()?;
    }
    Ok(())
}
