//! Label selectors as plain data. Pure.

use std::collections::BTreeMap;

/// Which objects are meant, by their labels. Without requirements: all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selector(pub Vec<Requirement>);

/// One requirement of a selector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    /// The label.
    pub key: String,
    /// What of it.
    pub operator: Operator,
    /// With which values.
    pub values: Vec<String>,
}

/// What is required of a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// Has one of the values.
    In,
    /// Has none of the values, or is not there.
    NotIn,
    /// Is there.
    Exists,
    /// Is not there.
    DoesNotExist,
    /// Nothing has it: what cannot be read selects nothing.
    Never,
}

impl Selector {
    /// That of one label with one value.
    pub fn label(key: &str, value: &str) -> Self {
        let values = vec![value.to_owned()];
        Self(vec![Requirement { key: key.to_owned(), operator: Operator::In, values }])
    }

    /// Whether labels fulfil every requirement.
    pub fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.iter().all(|requirement| requirement.holds(labels))
    }
}

impl Requirement {
    fn holds(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = labels.get(&self.key);
        let listed = || value.is_some_and(|value| self.values.contains(value));
        match self.operator {
            Operator::In => listed(),
            Operator::NotIn => !listed(),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::Never => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requirements_are_those_of_kubernetes() {
        let labels = BTreeMap::from([("app".to_owned(), "web".to_owned())]);
        for (key, operator, values, expected) in [
            ("app", Operator::In, vec!["web", "db"], true),
            ("app", Operator::In, vec!["db"], false),
            ("none", Operator::In, vec!["web"], false),
            ("app", Operator::NotIn, vec!["db"], true),
            ("app", Operator::NotIn, vec!["web"], false),
            ("none", Operator::NotIn, vec!["web"], true),
            ("app", Operator::Exists, vec![], true),
            ("none", Operator::Exists, vec![], false),
            ("none", Operator::DoesNotExist, vec![], true),
            ("app", Operator::DoesNotExist, vec![], false),
            ("app", Operator::Never, vec![], false),
        ] {
            let values = values.into_iter().map(str::to_owned).collect();
            let selector = Selector(vec![Requirement { key: key.to_owned(), operator, values }]);
            assert_eq!(selector.selects(&labels), expected, "{selector:?}");
        }
        assert!(Selector::default().selects(&labels));
        assert!(Selector::label("app", "web").selects(&labels));
    }
}
