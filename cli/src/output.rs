//! What users see: tables like kubectl's, YAML, JSON, names.

use std::io::{self, Write};

use serde_json::{Value, json};

/// The format of `-o`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// A table
    #[default]
    Table,
    /// A table with all columns
    Wide,
    /// JSON
    Json,
    /// YAML
    Yaml,
    /// One TYPE/NAME for each line
    Name,
}

/// Writes to standard output. A reader that went away is an error like any other; the binary ends quietly on it.
pub(crate) fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// [`print()`] with a line's end.
pub(crate) fn print_line(text: &str) -> io::Result<()> {
    print(&format!("{text}\n"))
}

/// An object as text in a format (JSON unless it says YAML).
pub(crate) fn object_text(object: &Value, format: Format) -> anyhow::Result<String> {
    Ok(match format {
        Format::Yaml => serde_yaml::to_string(object)?,
        _ => format!("{}\n", serde_json::to_string_pretty(object)?),
    })
}

/// Several objects as one `List`.
pub(crate) fn list_of(items: Vec<Value>) -> Value {
    json!({ "apiVersion": "v1", "items": items, "kind": "List", "metadata": { "resourceVersion": "" } })
}

/// How a server-side Table is shown.
#[derive(Debug, Clone, Default)]
pub(crate) struct TableStyle {
    pub(crate) wide: bool,
    pub(crate) namespaces: bool,
    pub(crate) labels: bool,
    pub(crate) headers: bool,
    /// Set before each name, for example `pod/`.
    pub(crate) name_prefix: String,
}

/// The lines of a table: cells in columns, three spaces apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Grid {
    rows: Vec<Vec<String>>,
}

impl Grid {
    pub(crate) fn row<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = S>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    /// The widths that all cells fit in, at least those of `widths`.
    pub(crate) fn widths(&self, mut widths: Vec<usize>) -> Vec<usize> {
        for row in &self.rows {
            widths.resize(widths.len().max(row.len()), 0);
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        widths
    }

    pub(crate) fn render(&self) -> String {
        self.render_with(&self.widths(Vec::new()))
    }

    pub(crate) fn render_with(&self, widths: &[usize]) -> String {
        let line = |row: &Vec<String>| {
            let padded = |(i, cell): (usize, &String)| {
                let width = widths.get(i).copied().unwrap_or(0) + 3;
                if i + 1 == row.len() { cell.clone() } else { format!("{cell:<width$}") }
            };
            row.iter().enumerate().map(padded).collect::<String>() + "\n"
        };
        self.rows.iter().map(line).collect()
    }
}

/// A `meta.k8s.io/v1 Table` as a grid. `columns`: the definitions, which watches send only once.
pub(crate) fn grid(table: &Value, columns: &[Value], style: &TableStyle) -> Grid {
    let shown: Vec<usize> =
        (0..columns.len()).filter(|i| style.wide || columns[*i]["priority"].as_i64().unwrap_or(0) == 0).collect();
    let mut grid = Grid::default();
    if style.headers {
        let own = shown.iter().map(|i| columns[*i]["name"].as_str().unwrap_or_default().to_uppercase());
        let namespace = style.namespaces.then(|| "NAMESPACE".to_owned());
        grid.row(namespace.into_iter().chain(own).chain(style.labels.then(|| "LABELS".to_owned())));
    }
    for row in table["rows"].as_array().into_iter().flatten() {
        let meta = &row["object"]["metadata"];
        let cell = |i: &usize| {
            let text = cell_text(&row["cells"][*i]);
            if columns[*i]["format"] == "name" { format!("{}{text}", style.name_prefix) } else { text }
        };
        let namespace = style.namespaces.then(|| cell_text(&meta["namespace"]));
        let labels = style.labels.then(|| labels_text(&meta["labels"]));
        grid.row(namespace.into_iter().chain(shown.iter().map(cell)).chain(labels));
    }
    grid
}

fn cell_text(value: &Value) -> String {
    match value {
        Value::Null => "<none>".to_owned(),
        Value::String(s) => s.replace('\n', " "),
        other => other.to_string(),
    }
}

/// `a=b,c=d`, or `<none>`.
pub(crate) fn labels_text(labels: &Value) -> String {
    let pair = |(k, v): (&String, &Value)| format!("{k}={}", v.as_str().unwrap_or_default());
    let pairs: Vec<String> = labels.as_object().into_iter().flatten().map(pair).collect();
    if pairs.is_empty() { "<none>".to_owned() } else { pairs.join(",") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Value {
        json!({
            "columnDefinitions": [
                {"name": "Name", "format": "name", "priority": 0}, {"name": "Ready", "priority": 0}, {"name": "IP", "priority": 1},
            ],
            "rows": [
                {"cells": ["web-1", 1, null], "object": {"metadata": {"namespace": "default", "labels": {"a": "b"}}}},
                {"cells": ["a-longer-name", 10, "10.0.0.1"], "object": {"metadata": {"namespace": "kube-system"}}},
            ],
        })
    }

    #[test]
    fn tables_are_aligned_like_kubectls() {
        let table = table();
        let columns = table["columnDefinitions"].as_array().unwrap();
        let plain = TableStyle { headers: true, ..TableStyle::default() };
        for (style, expected) in [
            (plain.clone(), "NAME            READY\nweb-1           1\na-longer-name   10\n"),
            (
                TableStyle { wide: true, ..plain.clone() },
                "NAME            READY   IP\nweb-1           1       <none>\na-longer-name   10      10.0.0.1\n",
            ),
            (
                TableStyle { namespaces: true, name_prefix: "pod/".into(), ..TableStyle::default() },
                "default       pod/web-1           1\nkube-system   pod/a-longer-name   10\n",
            ),
            (
                TableStyle { labels: true, ..plain },
                "NAME            READY   LABELS\nweb-1           1       a=b\na-longer-name   10      <none>\n",
            ),
        ] {
            assert_eq!(grid(&table, columns, &style).render(), expected);
        }
    }

    #[test]
    fn objects_as_text() {
        let object = json!({"kind": "A", "n": 1});
        assert_eq!(object_text(&object, Format::Yaml).unwrap(), "kind: A\nn: 1\n");
        assert_eq!(object_text(&object, Format::Json).unwrap(), "{\n  \"kind\": \"A\",\n  \"n\": 1\n}\n");
    }
}
