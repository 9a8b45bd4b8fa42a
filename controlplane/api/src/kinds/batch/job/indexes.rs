//! Lists of indexes as indexed Jobs write them: `1,3-5,7`, in increasing order.
//!
//! # Source
//! Kubernetes `pkg/apis/batch/validation/validation.go`, `validateIndexesFormat`,
//! `validateFailedIndexesNotOverlapCompleted`.

/// Bounds of an interval, both included.
type Interval = (i32, i32);

/// How many indexes a list names; each is below `completions`.
///
/// # Errors
/// What is wrong with the list, in Kubernetes' words.
pub(super) fn count(list: &str, completions: i32) -> Result<i32, String> {
    if list.is_empty() {
        return Ok(0);
    }
    let (mut last, mut total) = (None, 0_i32);
    for text in list.split(',') {
        let (first, end) = interval(text, completions)?;
        if let Some(last) = last.filter(|last| *last >= first) {
            return Err(format!("non-increasing order, previous: {last}, current: {first}"));
        }
        total = total.saturating_add(end.saturating_sub(first).saturating_add(1));
        last = Some(end);
    }
    Ok(total)
}

fn interval(text: &str, completions: i32) -> Result<Interval, String> {
    let parts: Vec<&str> = text.split('-').collect();
    match parts.as_slice() {
        [one] => index(one, completions).map(|one| (one, one)),
        [first, end] => {
            let (first, end) = (index(first, completions)?, index(end, completions)?);
            if first >= end {
                return Err(format!("non-increasing order, previous: {first}, current: {end}"));
            }
            Ok((first, end))
        }
        _ => Err(format!(
            "the fragment {text:?} violates the requirement that an index interval can have at most two parts separated \
             by '-'"
        )),
    }
}

fn index(text: &str, completions: i32) -> Result<i32, String> {
    match text.parse::<i64>() {
        Err(_) => Err(format!("cannot convert string to integer for index: {text:?}")),
        Ok(index) if index >= i64::from(completions) => Err(format!("too large index: {text:?}")),
        Ok(index) => i32::try_from(index).map_err(|_| format!("cannot convert string to integer for index: {text:?}")),
    }
}

/// The first index that two lists share. Intervals that cannot be read are left out: [`count`] tells of them.
pub(super) fn overlap(one: &str, other: &str, completions: i32) -> Option<i32> {
    let intervals =
        |list: &str| -> Vec<Interval> { list.split(',').filter_map(|text| interval(text, completions).ok()).collect() };
    let (one, other) = (intervals(one), intervals(other));
    let (mut one, mut other) = (one.iter().peekable(), other.iter().peekable());
    while let (Some(a), Some(b)) = (one.peek(), other.peek()) {
        if a.0 <= b.1 && b.0 <= a.1 {
            return Some(a.0.max(b.0));
        }
        if a.0 <= b.0 {
            one.next()
        } else {
            other.next()
        };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_indexes() {
        for (list, wanted) in [
            ("", Ok(0)),
            ("0", Ok(1)),
            ("0,2-4,9", Ok(5)),
            ("10", Err("too large index: \"10\"")),
            ("1,1", Err("non-increasing order, previous: 1, current: 1")),
            ("3-3", Err("non-increasing order, previous: 3, current: 3")),
            ("a", Err("cannot convert string to integer for index: \"a\"")),
            ("1-2-3", Err("the fragment \"1-2-3\" violates the requirement that an index interval can have at most")),
        ] {
            let got = count(list, 10);
            match wanted {
                Ok(count) => assert_eq!(got, Ok(count), "{list}"),
                Err(why) => assert!(got.as_ref().is_err_and(|e| e.starts_with(why)), "{list}: {got:?}"),
            }
        }
    }

    #[test]
    fn lists_that_share_an_index() {
        for (one, other, wanted) in [
            ("0-2,5", "3,4", None),
            ("0-2,5", "3-5", Some(5)),
            ("x,1", "1", Some(1)),
            ("", "1", None),
            ("2-8", "4", Some(4)),
        ] {
            assert_eq!(overlap(one, other, 10), wanted, "{one} {other}");
        }
    }
}
