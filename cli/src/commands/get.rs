//! `podium get`: objects as tables made by the server, or as YAML, JSON and names; with `-w` as they change.

use std::process::ExitCode;

use anyhow::{Result, bail};
use podium_api::{ApiError, Reason};
use serde_json::Value;

use super::report;
use crate::{
    Usage,
    connect::{Call, ConnectOptions, Connection, JSON},
    output::{Format, TableStyle, grid, list_of, object_text, print},
    resources::{Resource, Resources, targets},
};

/// Shows objects
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  podium get pods                       the pods of the namespace
  podium get deploy,svc -A              several kinds, of all namespaces
  podium get pod/web-1 -o yaml          one object, whole
  podium get pods -l app=web -w         what the selector matches, and every change
  podium get pods --field-selector spec.nodeName=n1 -o wide")]
pub(crate) struct GetArgs {
    /// TYPE[,TYPE…] [NAME…] or TYPE/NAME…
    #[arg(required = true, value_name = "TYPE")]
    targets: Vec<String>,
    /// How to show them
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
    /// Only objects with these labels, for example app=web,tier!=db
    #[arg(short = 'l', long, default_value = "", hide_default_value = true, value_name = "SELECTOR")]
    selector: String,
    /// Only objects with these fields, for example metadata.name=web
    #[arg(long, default_value = "", hide_default_value = true, value_name = "SELECTOR")]
    field_selector: String,
    /// Of all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Show every change, until Ctrl-C
    #[arg(short, long)]
    watch: bool,
    /// No error for objects that are not there
    #[arg(long)]
    ignore_not_found: bool,
    /// No headings
    #[arg(long)]
    no_headers: bool,
    /// A column with all labels
    #[arg(long)]
    show_labels: bool,
}

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
/// Objects asked for at a time.
const PAGE: u32 = 500;
/// Between the end of a watch and the next.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(100);

/// What to read: a collection or one object.
struct Query {
    resource: Resource,
    name: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// What the server says; unknown types.
pub(crate) async fn run(args: GetArgs, connect: &ConnectOptions) -> Result<ExitCode> {
    let targets = targets(&args.targets)?;
    if targets.iter().any(|(_, name)| name.is_some()) && !(args.selector.is_empty() && args.field_selector.is_empty()) {
        bail!(Usage("a selector and names exclude each other".to_owned()));
    }
    let connection = connect.connect().await?;
    let resources = Resources::discover(&connection).await?;
    let mut queries = Vec::new();
    for (kind, name) in targets {
        let found = resources.called(&kind)?;
        queries.extend(found.into_iter().map(|r| Query { resource: r.clone(), name: name.clone() }));
    }
    let getter = Getter { connection: &connection, args: &args, several: several(&queries) };
    if args.watch {
        let [query] = queries.as_slice() else { bail!(Usage("only one type or object can be watched".to_owned())) };
        return getter.watch(query).await.map(|()| ExitCode::SUCCESS);
    }
    match args.output {
        Format::Table | Format::Wide => getter.tables(&queries).await,
        _ => getter.objects(&queries).await,
    }
}

/// Whether names need their type before them.
fn several(queries: &[Query]) -> bool {
    queries.iter().any(|q| q.resource != queries[0].resource)
}

struct Getter<'a> {
    connection: &'a Connection,
    args: &'a GetArgs,
    several: bool,
}

impl Getter<'_> {
    fn path(&self, query: &Query) -> String {
        let namespace = Some(self.connection.namespace.as_str()).filter(|_| !self.args.all_namespaces);
        match &query.name {
            Some(name) => query.resource.object(&self.connection.namespace, name),
            None => query.resource.collection(namespace),
        }
    }

    fn call(&self, query: &Query) -> Call {
        Call::get(self.path(query))
            .query("labelSelector", &self.args.selector)
            .query("fieldSelector", &self.args.field_selector)
    }

    /// All pages of a list as one; an object as it is.
    async fn read(&self, query: &Query, accept: &'static str) -> Result<Value, ApiError> {
        if query.name.is_some() {
            return self.connection.json(self.call(query).accept(accept)).await;
        }
        let mut whole = Value::Null;
        let mut token = String::new();
        loop {
            let call = self.call(query).accept(accept).query("limit", PAGE).query("continue", &token);
            let mut page = self.connection.json(call).await?;
            token = page["metadata"]["continue"].as_str().unwrap_or_default().to_owned();
            if whole.is_null() {
                whole = page;
            } else {
                for key in ["rows", "items"] {
                    if let (Some(all), Some(more)) = (whole[key].as_array_mut(), page[key].as_array_mut()) {
                        all.append(more);
                    }
                }
            }
            if token.is_empty() {
                return Ok(whole);
            }
        }
    }

    fn forgiven(&self, error: &ApiError) -> bool {
        self.args.ignore_not_found && error.is_not_found()
    }

    /// Consecutive queries of one type make one table.
    async fn tables(&self, queries: &[Query]) -> Result<ExitCode> {
        let mut code = ExitCode::SUCCESS;
        let mut tables: Vec<(&Resource, Value)> = Vec::new();
        for query in queries {
            match self.read(query, TABLE).await {
                Ok(mut table) => match tables.last_mut() {
                    Some((resource, last)) if **resource == query.resource => {
                        if let (Some(all), Some(more)) = (last["rows"].as_array_mut(), table["rows"].as_array_mut()) {
                            all.append(more);
                        }
                    }
                    _ => tables.push((&query.resource, table)),
                },
                Err(error) if self.forgiven(&error) => {}
                Err(error) => {
                    report(&error.into());
                    code = ExitCode::FAILURE;
                }
            }
        }
        tables.retain(|(_, table)| table["rows"].as_array().is_some_and(|rows| !rows.is_empty()));
        for (index, (resource, table)) in tables.iter().enumerate() {
            let columns = table["columnDefinitions"].as_array().cloned().unwrap_or_default();
            let separator = if index > 0 { "\n" } else { "" };
            print(&format!("{separator}{}", grid(table, &columns, &self.style(resource)).render()))?;
        }
        if tables.is_empty() && code == ExitCode::SUCCESS && !self.args.ignore_not_found {
            let namespaced = queries.iter().any(|q| q.resource.namespaced) && !self.args.all_namespaces;
            let place = if namespaced { format!(" in {} namespace", self.connection.namespace) } else { String::new() };
            eprintln!("No resources found{place}.");
        }
        Ok(code)
    }

    fn style(&self, resource: &Resource) -> TableStyle {
        TableStyle {
            wide: self.args.output == Format::Wide,
            namespaces: self.args.all_namespaces && resource.namespaced,
            labels: self.args.show_labels,
            headers: !self.args.no_headers,
            name_prefix: if self.several { format!("{}/", resource.qualified_singular()) } else { String::new() },
        }
    }

    async fn objects(&self, queries: &[Query]) -> Result<ExitCode> {
        let mut code = ExitCode::SUCCESS;
        let mut objects = Vec::new();
        for query in queries {
            match self.read(query, JSON).await {
                Ok(answer) if query.name.is_some() => objects.push((&query.resource, answer)),
                Ok(answer) => objects.extend(items_of(&query.resource, answer)),
                Err(error) if self.forgiven(&error) => {}
                Err(error) => {
                    report(&error.into());
                    code = ExitCode::FAILURE;
                }
            }
        }
        let alone = matches!(queries, [Query { name: Some(_), .. }]);
        match (self.args.output, objects.as_slice()) {
            (Format::Name, objects) => {
                let line = |(r, o): &(&Resource, Value)| format!("{}\n", r.display(name_of(o)));
                print(&objects.iter().map(line).collect::<String>())?;
            }
            (format, [(_, one)]) if alone => print(&object_text(one, format)?)?,
            (_, []) if alone => {}
            (format, _) => {
                let items = objects.into_iter().map(|(_, object)| object).collect();
                print(&object_text(&list_of(items), format)?)?;
            }
        }
        Ok(code)
    }

    /// Prints what is there, then every change. A watch that the server ends goes on where it was; one that is too
    /// old starts anew.
    async fn watch(&self, query: &Query) -> Result<()> {
        let mut call = self.call(query);
        if let Some(name) = &query.name {
            let namespace = Some(self.connection.namespace.as_str());
            let selector = format!("metadata.name={name}");
            call = Call::get(query.resource.collection(namespace)).query("fieldSelector", selector);
        }
        let accept = if self.is_table() { TABLE } else { JSON };
        let mut shown = Shown { getter: self, resource: &query.resource, columns: Vec::new(), widths: Vec::new() };
        loop {
            let list = self.read(query, accept).await?;
            let mut revision = revision_of(&list);
            shown.list(list)?;
            while let Some(next) = self.follow(&call, accept, &revision, &mut shown).await? {
                revision = next;
                // A server that ends watches at once shall not be asked without pause.
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    fn is_table(&self) -> bool {
        matches!(self.args.output, Format::Table | Format::Wide)
    }

    /// One watch to its end; answers with the revision to go on from, or `None` when it is too old.
    async fn follow(
        &self,
        call: &Call,
        accept: &'static str,
        revision: &str,
        shown: &mut Shown<'_>,
    ) -> Result<Option<String>> {
        let call = call.clone().accept(accept).query("watch", true).query("allowWatchBookmarks", true);
        let mut stream = match self.connection.stream(call.query("resourceVersion", revision)).await {
            Err(error) if matches!(error.reason, Reason::Expired | Reason::Gone) => return Ok(None),
            other => other?,
        };
        let mut revision = revision.to_owned();
        while let Some(line) = stream.next_line().await? {
            let mut event: Value = serde_json::from_slice(&line)?;
            let object = event["object"].take();
            match event["type"].as_str().unwrap_or_default() {
                "ERROR" if object["code"] == 410 => return Ok(None),
                "ERROR" => bail!("{}", object["message"].as_str().unwrap_or("the watch failed")),
                kind => {
                    revision = Some(revision_of(&object)).filter(|next| !next.is_empty()).unwrap_or(revision);
                    if kind != "BOOKMARK" {
                        shown.event(&object)?;
                    }
                }
            }
        }
        Ok(Some(revision))
    }
}

fn revision_of(object: &Value) -> String {
    let of_row = &object["rows"][0]["object"]["metadata"]["resourceVersion"];
    let own = object["metadata"]["resourceVersion"].as_str().filter(|r| !r.is_empty());
    own.or(of_row.as_str()).unwrap_or_default().to_owned()
}

fn name_of(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

/// The items of a list, each with its type, which lists leave out.
fn items_of(resource: &Resource, mut list: Value) -> Vec<(&Resource, Value)> {
    let items = match list["items"].take() {
        Value::Array(items) => items,
        _ => Vec::new(),
    };
    let typed = |mut item: Value| {
        item["apiVersion"] = resource.api_version().into();
        item["kind"] = resource.kind.as_str().into();
        (resource, item)
    };
    items.into_iter().map(typed).collect()
}

/// What a watch has printed so far: columns and widths stay as they began.
struct Shown<'a> {
    getter: &'a Getter<'a>,
    resource: &'a Resource,
    columns: Vec<Value>,
    widths: Vec<usize>,
}

impl Shown<'_> {
    fn list(&mut self, list: Value) -> Result<()> {
        if self.getter.is_table() {
            return self.table(&list);
        }
        if list["items"].is_array() {
            return items_of(self.resource, list).iter().try_for_each(|(_, item)| self.object(item));
        }
        self.object(&list)
    }

    fn event(&mut self, object: &Value) -> Result<()> {
        if self.getter.is_table() { self.table(object) } else { self.object(object) }
    }

    fn object(&self, object: &Value) -> Result<()> {
        match self.getter.args.output {
            Format::Name => print(&format!("{}\n", self.resource.display(name_of(object))))?,
            Format::Yaml => print(&format!("---\n{}", object_text(object, Format::Yaml)?))?,
            format => print(&object_text(object, format)?)?,
        }
        Ok(())
    }

    fn table(&mut self, table: &Value) -> Result<()> {
        let mut style = self.getter.style(self.resource);
        style.headers &= self.columns.is_empty();
        if let Some(columns) = table["columnDefinitions"].as_array().filter(|c| !c.is_empty()) {
            self.columns.clone_from(columns);
        }
        let grid = grid(table, &self.columns, &style);
        self.widths = grid.widths(std::mem::take(&mut self.widths));
        print(&grid.render_with(&self.widths))?;
        Ok(())
    }
}
