//! Whole numbers as `$((...))` and `expr` know them. Names are variables.

/// Deepest nesting of brackets.
const DEPTH_MAX: u32 = 64;

/// Binary operators, those that bind least first.
const LEVELS: &[&[&str]] = &[
    &["||"],
    &["&&"],
    &["|"],
    &["^"],
    &["&"],
    &["==", "!="],
    &["<=", ">=", "<", ">"],
    &["<<", ">>"],
    &["+", "-"],
    &["*", "/", "%"],
];

/// Computes. `value`: of a variable.
///
/// # Errors
/// What cannot be understood, or divides by zero.
pub fn compute(text: &str, value: &dyn Fn(&str) -> String) -> Result<i64, String> {
    let mut reader = Reader { rest: text.trim(), value, depth: 0 };
    if reader.rest.is_empty() {
        return Ok(0);
    }
    let result = reader.choice()?;
    if reader.rest.is_empty() { Ok(result) } else { Err(format!("{text}: {:?} is unexpected", reader.rest)) }
}

struct Reader<'a> {
    rest: &'a str,
    value: &'a dyn Fn(&str) -> String,
    depth: u32,
}

impl Reader<'_> {
    fn take(&mut self, text: &str) -> bool {
        match self.rest.strip_prefix(text) {
            Some(rest) => {
                self.rest = rest.trim_start();
                true
            }
            None => false,
        }
    }

    /// `a ? b : c`
    fn choice(&mut self) -> Result<i64, String> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err("nested too deeply".to_owned());
        }
        let mut result = self.level(0)?;
        if self.take("?") {
            let yes = self.choice()?;
            if !self.take(":") {
                return Err("a ':' is missing".to_owned());
            }
            let no = self.choice()?;
            result = if result != 0 { yes } else { no };
        }
        self.depth -= 1;
        Ok(result)
    }

    fn level(&mut self, level: usize) -> Result<i64, String> {
        let Some(operators) = LEVELS.get(level) else { return self.single() };
        let mut left = self.level(level + 1)?;
        // `<` begins `<<`, `&` begins `&&`: those are of other levels.
        while let Some(operator) = operators.iter().find(|o| self.rest.starts_with(**o) && !self.is_longer(o)) {
            self.take(operator);
            let right = self.level(level + 1)?;
            left = apply(operator, left, right)?;
        }
        Ok(left)
    }

    fn is_longer(&self, operator: &str) -> bool {
        let all = LEVELS.iter().flat_map(|level| level.iter());
        all.into_iter().any(|o| o.len() > operator.len() && self.rest.starts_with(o))
    }

    fn single(&mut self) -> Result<i64, String> {
        if self.take("(") {
            let result = self.choice()?;
            return if self.take(")") { Ok(result) } else { Err("a ')' is missing".to_owned()) };
        }
        if self.take("-") {
            return Ok(self.single()?.wrapping_neg());
        }
        if self.take("+") {
            return self.single();
        }
        if self.rest.starts_with('!') && !self.rest.starts_with("!=") {
            self.take("!");
            return Ok(i64::from(self.single()? == 0));
        }
        let end = self.rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest.trim_start();
        match word.chars().next() {
            None => Err(format!("{:?} is unexpected", self.rest)),
            Some(c) if c.is_ascii_digit() => number(word),
            Some(_) => {
                let value = (self.value)(word);
                if value.trim().is_empty() { Ok(0) } else { number(value.trim()) }
            }
        }
    }
}

fn number(text: &str) -> Result<i64, String> {
    let (sign, digits) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
    let parsed = match digits.strip_prefix("0x") {
        Some(hex) => i64::from_str_radix(hex, 16),
        None if digits.len() > 1 && digits.starts_with('0') => i64::from_str_radix(digits, 8),
        None => digits.parse(),
    };
    parsed.map(|n: i64| n.wrapping_mul(sign)).map_err(|_| format!("{text}: not a number"))
}

fn apply(operator: &str, a: i64, b: i64) -> Result<i64, String> {
    let divided = |result: Option<i64>| result.ok_or_else(|| "division by zero".to_owned());
    let shift = u32::try_from(b & 63).unwrap_or(0);
    Ok(match operator {
        "||" => i64::from(a != 0 || b != 0),
        "&&" => i64::from(a != 0 && b != 0),
        "|" => a | b,
        "^" => a ^ b,
        "&" => a & b,
        "==" => i64::from(a == b),
        "!=" => i64::from(a != b),
        "<=" => i64::from(a <= b),
        ">=" => i64::from(a >= b),
        "<" => i64::from(a < b),
        ">" => i64::from(a > b),
        "<<" => a.wrapping_shl(shift),
        ">>" => a.wrapping_shr(shift),
        "+" => a.wrapping_add(b),
        "-" => a.wrapping_sub(b),
        "*" => a.wrapping_mul(b),
        "/" => divided(a.checked_div(b))?,
        _ => divided(a.checked_rem(b))?,
    })
}
