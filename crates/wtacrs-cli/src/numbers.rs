//! Numbers as people read them.

/// The value to so many significant digits, without an exponent.
pub(crate) fn to_digits(value: f64, digits: i32) -> String {
    let magnitude = if value > 0.0 { value.log10().floor() as i32 } else { 0 };
    let decimals = (digits - 1 - magnitude).max(0) as usize;
    format!("{value:.decimals$}")
}

/// The value to so many significant digits, without an exponent and without idle zeros.
pub(crate) fn significant(value: f64, digits: i32) -> String {
    let text = to_digits(value, digits);
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::{significant, to_digits};

    #[test]
    fn digits() {
        let three =
            [0.299_804, 0.099_609, 0.2512, 12.345, 12345.0, 1.0, 0.0, 0.0001].map(|value| significant(value, 3));
        assert_eq!(three, ["0.3", "0.0996", "0.251", "12.3", "12345", "1", "0", "0.0001"]);
        assert_eq!(significant(0.0996, 2), "0.1");
        assert_eq!(to_digits(0.2, 3), "0.200");
    }
}
