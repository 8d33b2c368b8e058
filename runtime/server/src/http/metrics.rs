//! Metrics as text, in the exposition format of Prometheus (0.0.4).
//!
//! A name is the family's with underscores, its unit, and `_total` if it only rises.

use std::fmt::Write as _;

use mainspring_host::Distribution;

use crate::telemetry::metrics::{Family, Label, Series, Unit, Values};

/// What the text is, for whoever reads it.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Writes all families.
pub(crate) fn text(families: &[Family]) -> String {
    let mut text = String::new();
    for family in families {
        write_family(&mut text, family);
    }
    text
}

fn write_family(text: &mut String, family: &Family) {
    let name = name(family);
    let kind = match family.values {
        Values::Counter(_) => "counter",
        Values::Gauge(_) => "gauge",
        Values::Distribution(_) => "histogram",
    };
    line(text, format_args!("# HELP {name} {}", family.help));
    line(text, format_args!("# TYPE {name} {kind}"));
    match &family.values {
        Values::Counter(series) => write_series(text, &name, series),
        Values::Gauge(series) => write_series(text, &name, series),
        Values::Distribution(series) => {
            let scale = match family.unit {
                Unit::Seconds => 1e-9,
                Unit::Count(_) | Unit::Bytes => 1.0,
            };
            for (labels, distribution) in series {
                write_distribution(text, &name, labels, distribution, scale);
            }
        }
    }
}

fn name(family: &Family) -> String {
    let mut name = family.name.replace('.', "_");
    name.push_str(match family.unit {
        Unit::Count(_) => "",
        Unit::Seconds => "_seconds",
        Unit::Bytes => "_bytes",
    });
    if matches!(family.values, Values::Counter(_)) {
        name.push_str("_total");
    }
    name
}

fn write_series<T: std::fmt::Display>(text: &mut String, name: &str, series: &[Series<T>]) {
    for (labels, value) in series {
        line(text, format_args!("{name}{} {value}", braced(labels, None)));
    }
}

fn write_distribution(
    text: &mut String,
    name: &str,
    labels: &[Label],
    distribution: &Distribution,
    scale: f64,
) {
    let bounds = distribution.bounds.iter().map(|bound| {
        // Through text, so that 0.1 ms is not shown as 0.00010000000000000001 s.
        let rounded = format!("{:.12}", *bound as f64 * scale);
        let trimmed = rounded.trim_end_matches('0').trim_end_matches('.');
        trimmed.to_owned()
    });
    let mut below = 0;
    for (bound, count) in bounds.chain(["+Inf".to_owned()]).zip(&distribution.counts) {
        below += count;
        let labels = braced(labels, Some(&bound));
        line(text, format_args!("{name}_bucket{labels} {below}"));
    }
    let labels = braced(labels, None);
    let sum = distribution.sums.iter().sum::<u64>() as f64 * scale;
    line(text, format_args!("{name}_sum{labels} {sum}"));
    line(text, format_args!("{name}_count{labels} {below}"));
}

/// Labels in braces; nothing when there are none. Their values are words of this crate: none has to be escaped.
fn braced(labels: &[Label], bound: Option<&str>) -> String {
    let own = labels.iter().copied();
    let pairs: Vec<String> = own
        .chain(bound.map(|bound| ("le", bound)))
        .map(|(label, value)| format!("{label}=\"{value}\""))
        .collect();
    match pairs.is_empty() {
        true => String::new(),
        false => format!("{{{}}}", pairs.join(",")),
    }
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    let _ = writeln!(text, "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_metric_is_written_with_its_unit_and_labels() {
        let family = |name, unit, values| Family {
            name,
            unit,
            help: "What it is",
            values,
        };
        let families = [
            family(
                "a.things",
                Unit::Count("thing"),
                Values::Counter(vec![(vec![("kind", "x"), ("of", "y")], 7)]),
            ),
            family(
                "a.age",
                Unit::Seconds,
                Values::Gauge(vec![(Vec::new(), 0.25)]),
            ),
            family(
                "a.wait",
                Unit::Seconds,
                Values::Distribution(vec![(
                    vec![("kind", "x")],
                    Distribution {
                        bounds: &[100_000, 2_500_000_000],
                        counts: vec![1, 2, 3],
                        sums: vec![50_000, 500_000_000, 9_000_000_000],
                    },
                )]),
            ),
            family(
                "a.depth",
                Unit::Count("message"),
                Values::Distribution(vec![(
                    Vec::new(),
                    Distribution {
                        bounds: &[8],
                        counts: vec![1, 0],
                        sums: vec![5, 0],
                    },
                )]),
            ),
        ];
        let expected = "\
# HELP a_things_total What it is
# TYPE a_things_total counter
a_things_total{kind=\"x\",of=\"y\"} 7
# HELP a_age_seconds What it is
# TYPE a_age_seconds gauge
a_age_seconds 0.25
# HELP a_wait_seconds What it is
# TYPE a_wait_seconds histogram
a_wait_seconds_bucket{kind=\"x\",le=\"0.0001\"} 1
a_wait_seconds_bucket{kind=\"x\",le=\"2.5\"} 3
a_wait_seconds_bucket{kind=\"x\",le=\"+Inf\"} 6
a_wait_seconds_sum{kind=\"x\"} 9.50005
a_wait_seconds_count{kind=\"x\"} 6
# HELP a_depth What it is
# TYPE a_depth histogram
a_depth_bucket{le=\"8\"} 1
a_depth_bucket{le=\"+Inf\"} 1
a_depth_sum 5
a_depth_count 1
";
        assert_eq!(text(&families), expected);
    }
}
