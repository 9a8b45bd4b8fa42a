//! `resource.Quantity`: amounts with a suffix (`250m`, `1Gi`, `1e3`), exact to a billionth.
//!
//! Amounts are kept as a whole number of billionths; like Kubernetes, finer fractions are rounded away from zero and
//! amounts beyond 2^63-1 are capped there. Does no unit conversion beyond cores to [`Millicores`].
//!
//! # Source
//! Kubernetes `staging/src/k8s.io/apimachinery/pkg/api/resource/quantity.go`.

use std::{cmp::Ordering, fmt, str::FromStr};

use k8s_openapi::apimachinery::pkg::api::resource::Quantity as WireQuantity;

const NANO: i128 = 1_000_000_000;
/// Largest amount, in billionths.
const NANOS_MAX: i128 = i64::MAX as i128 * NANO;

/// Why a text is no quantity. The messages are Kubernetes'.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// The text has not the form of a quantity at all.
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    /// What follows the number is no known suffix.
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

/// How an amount is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Format {
    /// `12k`, `250m`.
    #[default]
    DecimalSi,
    /// `12Ki`.
    BinarySi,
    /// `12e3`.
    DecimalExponent,
}

/// An amount. Compared by value, whatever the format.
#[derive(Debug, Clone, Copy, Default)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

impl Quantity {
    /// Nothing.
    pub const ZERO: Self = Self { nanos: 0, format: Format::DecimalSi };

    /// A whole amount.
    pub fn from_value(value: i64, format: Format) -> Self {
        Self { nanos: i128::from(value) * NANO, format }
    }

    /// An amount of thousandths.
    pub fn from_milli(milli: i64) -> Self {
        Self { nanos: i128::from(milli) * (NANO / 1000), format: Format::DecimalSi }
    }

    /// The whole amount, rounded away from zero.
    pub fn value(&self) -> i64 {
        saturate(divide_up(self.nanos, NANO))
    }

    /// The amount in thousandths, rounded away from zero, at most `i64::MAX`.
    pub fn milli(&self) -> i64 {
        saturate(divide_up(self.nanos, NANO / 1000))
    }

    /// The amount of cores in thousandths; zero when negative.
    pub fn millicores(&self) -> Millicores {
        Millicores(u64::try_from(self.milli()).unwrap_or(0))
    }

    /// The whole amount of bytes; zero when negative.
    pub fn bytes(&self) -> u64 {
        u64::try_from(self.value()).unwrap_or(0)
    }

    /// Whether nothing.
    pub fn is_zero(&self) -> bool {
        self.nanos == 0
    }

    /// Whether less than nothing.
    pub fn is_negative(&self) -> bool {
        self.nanos < 0
    }

    /// Whether a whole number.
    pub fn is_whole(&self) -> bool {
        self.nanos % NANO == 0
    }

    /// How it is written.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The form that the API shows.
    pub fn to_wire(&self) -> WireQuantity {
        WireQuantity(self.to_string())
    }

    fn with(self, nanos: i128, other: Self) -> Self {
        let format = if self.nanos == 0 { other.format } else { self.format };
        Self { nanos: nanos.clamp(-NANOS_MAX, NANOS_MAX), format }
    }
}

/// Capped at the ends of the range. The format is that of the left side, or of the right when the left is zero.
impl std::ops::Add for Quantity {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        self.with(self.nanos.saturating_add(other.nanos), other)
    }
}

/// As for addition.
impl std::ops::Sub for Quantity {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        self.with(self.nanos.saturating_sub(other.nanos), other)
    }
}

impl std::iter::Sum for Quantity {
    fn sum<I: Iterator<Item = Self>>(items: I) -> Self {
        items.fold(Self::ZERO, |sum, item| sum + item)
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}
impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl TryFrom<&WireQuantity> for Quantity {
    type Error = QuantityError;
    fn try_from(wire: &WireQuantity) -> Result<Self, QuantityError> {
        wire.0.parse()
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        if text.is_empty() {
            return Err(QuantityError::Format);
        }
        let (negative, rest) = match text.as_bytes()[0] {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        let (whole, rest) = split_digits(rest);
        let (fraction, suffix) = rest.strip_prefix('.').map_or(("", rest), split_digits);
        check_suffix_form(suffix)?;
        let (scale, format) = parse_suffix(suffix).ok_or(QuantityError::Suffix)?;
        let whole = whole.trim_start_matches('0');
        let fraction = fraction.trim_end_matches('0');
        let nanos = match scale {
            Scale::Ten(exponent) => decimal_nanos(whole, fraction, exponent),
            Scale::Two(exponent) => binary_nanos(whole, fraction, exponent),
        }
        .min(NANOS_MAX);
        Ok(Self { nanos: if negative { -nanos } else { nanos }, format })
    }
}

fn split_digits(text: &str) -> (&str, &str) {
    text.split_at(text.bytes().position(|b| !b.is_ascii_digit()).unwrap_or(text.len()))
}

/// Letters of suffixes, then a sign, then digits, then nothing.
fn check_suffix_form(suffix: &str) -> Result<(), QuantityError> {
    let rest = suffix.trim_start_matches(|c| "eEinumkKMGTP".contains(c));
    let rest = rest.strip_prefix(['-', '+']).unwrap_or(rest);
    if rest.bytes().all(|b| b.is_ascii_digit()) { Ok(()) } else { Err(QuantityError::Format) }
}

enum Scale {
    Ten(i64),
    Two(u32),
}

const DECIMAL: [(&str, i64); 10] =
    [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];
const BINARY: [(&str, u32); 6] = [("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40), ("Pi", 50), ("Ei", 60)];

fn parse_suffix(suffix: &str) -> Option<(Scale, Format)> {
    if let Some((_, exponent)) = DECIMAL.iter().find(|(s, _)| *s == suffix) {
        return Some((Scale::Ten(*exponent), Format::DecimalSi));
    }
    if let Some((_, exponent)) = BINARY.iter().find(|(s, _)| *s == suffix) {
        return Some((Scale::Two(*exponent), Format::BinarySi));
    }
    let exponent = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    Some((Scale::Ten(exponent), Format::DecimalExponent))
}

/// `whole.fraction * 10^exponent` in billionths, rounded up. `whole` has no leading, `fraction` no trailing zeros.
fn decimal_nanos(whole: &str, fraction: &str, exponent: i64) -> i128 {
    let digits = format!("{whole}{fraction}");
    let digits = digits.trim_start_matches('0');
    if digits.is_empty() {
        return 0;
    }
    let length = |s: &str| i64::try_from(s.len()).unwrap_or(i64::MAX);
    let shift = exponent.saturating_add(9).saturating_sub(length(fraction));
    let kept = length(digits).saturating_add(shift);
    if kept > 38 {
        return NANOS_MAX;
    }
    if kept <= 0 {
        return 1;
    }
    let kept = usize::try_from(kept).unwrap_or(0);
    if shift >= 0 {
        return format!("{digits:0<kept$}").parse().unwrap_or(NANOS_MAX);
    }
    let (head, tail) = digits.split_at(kept);
    head.parse::<i128>().unwrap_or(NANOS_MAX) + i128::from(tail.bytes().any(|b| b != b'0'))
}

/// `whole.fraction * 2^exponent` in billionths, rounded up.
fn binary_nanos(whole: &str, fraction: &str, exponent: u32) -> i128 {
    if whole.len() > 19 {
        return NANOS_MAX;
    }
    let units = (1_i128 << exponent).saturating_mul(whole.parse().unwrap_or(0));
    let kept = &fraction[..fraction.len().min(18)];
    let fraction_scaled = format!("{kept:0<18}").parse::<i128>().unwrap_or(0) * (1_i128 << exponent);
    let fraction_nanos = divide_up(fraction_scaled, NANO) + i128::from(fraction.len() > 18);
    units.min(i128::from(i64::MAX)) * NANO + fraction_nanos
}

/// Division rounding away from zero.
fn divide_up(n: i128, by: i128) -> i128 {
    let whole = n / by;
    if n % by == 0 { whole } else { whole + n.signum() }
}

fn saturate(n: i128) -> i64 {
    i64::try_from(n).unwrap_or(if n < 0 { i64::MIN } else { i64::MAX })
}

/// The canonical form: no fraction, the largest suffix that allows that.
impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        let binary = self.format == Format::BinarySi && self.nanos.abs() >= 1024 * NANO && self.is_whole();
        if binary { self.write_binary(f) } else { self.write_decimal(f) }
    }
}

impl Quantity {
    fn write_binary(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut mantissa, mut steps) = (self.nanos / NANO, 0);
        while mantissa % 1024 == 0 && steps < BINARY.len() {
            (mantissa, steps) = (mantissa / 1024, steps + 1);
        }
        let suffix = if steps == 0 { "" } else { BINARY[steps - 1].0 };
        write!(f, "{mantissa}{suffix}")
    }

    fn write_decimal(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut mantissa, mut step) = (self.nanos, 0);
        while mantissa % 1000 == 0 && step + 1 < DECIMAL.len() {
            (mantissa, step) = (mantissa / 1000, step + 1);
        }
        let (suffix, exponent) = DECIMAL[step];
        match (self.format, exponent) {
            (Format::DecimalExponent, 0) => write!(f, "{mantissa}"),
            (Format::DecimalExponent, _) => write!(f, "{mantissa}e{exponent}"),
            _ => write!(f, "{mantissa}{suffix}"),
        }
    }
}

/// Thousandths of a core.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millicores(pub u64);

impl fmt::Display for Millicores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}m", self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn canonical_forms() {
        for (input, canonical, value, milli) in [
            ("0", "0", 0, 0),
            ("250m", "250m", 1, 250),
            ("0.5", "500m", 1, 500),
            ("1000m", "1", 1, 1000),
            ("1500m", "1500m", 2, 1500),
            ("1e3", "1e3", 1000, 1_000_000),
            ("12e-3", "12e-3", 1, 12),
            ("1E", "1E", 1_000_000_000_000_000_000, i64::MAX),
            ("64Mi", "64Mi", 64 << 20, (64 << 20) * 1000),
            ("1024Mi", "1Gi", 1 << 30, (1 << 30) * 1000),
            ("1.5Gi", "1536Mi", 1536 << 20, (1536 << 20) * 1000),
            ("0.5Ki", "512", 512, 512_000),
            ("1000", "1k", 1000, 1_000_000),
            ("1100", "1100", 1100, 1_100_000),
            ("-1.5", "-1500m", -2, -1500),
            ("+3", "3", 3, 3000),
            ("0.0000000001", "1n", 1, 1),
            ("1e-30", "1e-9", 1, 1),
            (".5", "500m", 1, 500),
            ("5.", "5", 5, 5000),
            ("00012", "12", 12, 12_000),
            ("99999999999999999999", "9223372036854775807", i64::MAX, i64::MAX),
            ("1e999999999999", "9223372036854775807", i64::MAX, i64::MAX),
            ("9Ei", "9223372036854775807", i64::MAX, i64::MAX),
        ] {
            let q: Quantity = input.parse().unwrap();
            let shown = q.to_string().replace("e0", "");
            assert_eq!((shown.as_str(), q.value(), q.milli()), (canonical, value, milli), "{input}");
        }
    }

    #[test]
    fn refused() {
        use QuantityError::{Format, Suffix};
        for (input, error) in [
            ("", Format),
            ("abc", Format),
            ("1 Gi", Format),
            (" 1", Format),
            ("1.1.M", Format),
            ("1+1.0M", Format),
            ("0.1mi", Suffix),
            ("1i", Suffix),
            ("-3.01e-", Suffix),
            ("1KiB", Format),
            ("1Kib", Format),
            ("1GI", Format),
            ("1KM", Suffix),
        ] {
            assert_eq!(input.parse::<Quantity>(), Err(error), "{input}");
        }
    }

    #[test]
    fn arithmetic_keeps_the_format_and_is_capped() {
        let q = |s: &str| s.parse::<Quantity>().unwrap();
        assert_eq!((q("1Gi") + q("1Gi")).to_string(), "2Gi");
        assert_eq!((q("0") + q("1Gi")).to_string(), "1Gi");
        assert_eq!((q("1") - q("250m")).to_string(), "750m");
        assert_eq!((q("9E") + q("9E")).value(), i64::MAX);
        assert!(q("1Gi") > q("1G") && q("1000m") == q("1"));
        assert_eq!([q("100m"), q("0.2")].into_iter().sum::<Quantity>().millicores(), Millicores(300));
    }

    proptest! {
        #[test]
        fn canonical_form_reads_back(nanos in -NANOS_MAX..=NANOS_MAX, format in 0..3) {
            let format = [Format::DecimalSi, Format::BinarySi, Format::DecimalExponent][format as usize];
            let q = Quantity { nanos, format };
            let text = q.to_string();
            let back: Quantity = text.parse().unwrap();
            prop_assert_eq!(back, q);
            prop_assert_eq!(back.to_string(), text);
        }

        #[test]
        fn never_panics(text in "[-+]?[0-9.]{0,45}[eEinumkKMGTP]{0,3}[-+]?[0-9]{0,25}") {
            if let Ok(q) = text.parse::<Quantity>() {
                let canonical = q.to_string();
                prop_assert_eq!(canonical.parse::<Quantity>().unwrap().to_string(), canonical);
            }
        }
    }
}
