//! Numbers for people, as the status page has them.

/// Bytes, with a binary unit.
pub(super) fn bytes(value: f64) -> String {
    scaled(value, 1024.0, &[" B", " KiB", " MiB", " GiB", " TiB", " PiB"])
}

/// So many in a second.
pub(super) fn rate(value: f64) -> String {
    scaled(value, 1000.0, &["/s", "k/s", "M/s", "G/s"])
}

/// Milliseconds, in the unit that fits.
pub(super) fn time(ms: f64) -> String {
    let units = [
        (60_000.0, 1000.0, "s"),
        (3_600_000.0, 60_000.0, "min"),
        (172_800_000.0, 3_600_000.0, "h"),
        (f64::INFINITY, 86_400_000.0, "days"),
    ];
    if ms < 1000.0 {
        return format!("{} ms", digits(ms));
    }
    let (_, unit, name) = units.into_iter().find(|(end, _, _)| ms < *end).unwrap_or(units[3]);
    format!("{} {name}", digits(ms / unit))
}

fn scaled(mut value: f64, base: f64, units: &[&str]) -> String {
    let mut units = units.iter();
    let mut unit = units.next().copied().unwrap_or_default();
    for larger in units {
        if value.abs() < base {
            break;
        }
        (value, unit) = (value / base, larger);
    }
    format!("{}{unit}", digits(value))
}

/// Three digits at most, and none behind the point that say nothing.
fn digits(value: f64) -> String {
    let places = match value.abs() {
        0.0 | 100.0.. => 0,
        10.0.. => 1,
        _ => 2,
    };
    let text = format!("{value:.places$}");
    if places == 0 { text } else { text.trim_end_matches('0').trim_end_matches('.').to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        assert_eq!([0.0, 1023.0, 1536.0, 1e9].map(bytes), ["0 B", "1023 B", "1.5 KiB", "954 MiB"]);
        assert_eq!([0.0, 0.4, 12.34, 123_456.0].map(rate), ["0/s", "0.4/s", "12.3/s", "123k/s"]);
        let times = [0.0, 0.25, 12.0, 1500.0, 90_000.0, 7_200_000.0, 259_200_000.0];
        assert_eq!(times.map(time), ["0 ms", "0.25 ms", "12 ms", "1.5 s", "1.5 min", "2 h", "3 days"]);
    }
}
