//! The tree of an expression. Macros stay what they were written as.
//!
//! Invariant: no tree is deeper than [`super::parse::DEPTH_MAX`], so that walking (and dropping) one needs a bounded stack.

/// A part of an expression.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    /// Where it begins, in bytes.
    pub(crate) at: u32,
    /// Levels below and including this one.
    pub(crate) depth: u16,
    pub(crate) expr: Expr,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Literal {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(std::sync::Arc<str>),
    Bytes(std::sync::Arc<[u8]>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    Add,
    Sub,
    Mul,
    Div,
    Rem,
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    In,
}

impl Op {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Add => "_+_",
            Self::Sub => "_-_",
            Self::Mul => "_*_",
            Self::Div => "_/_",
            Self::Rem => "_%_",
            Self::Eq => "_==_",
            Self::Ne => "_!=_",
            Self::Lt => "_<_",
            Self::Le => "_<=_",
            Self::Gt => "_>_",
            Self::Ge => "_>=_",
            Self::In => "@in",
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Expr {
    Literal(Literal),
    Ident(String),
    Select { of: Box<Node>, field: String, test: bool, optional: bool },
    Index { of: Box<Node>, index: Box<Node>, optional: bool },
    Call { target: Option<Box<Node>>, name: String, args: Vec<Node> },
    Not(Box<Node>),
    Negate(Box<Node>),
    Binary(Op, Box<Node>, Box<Node>),
    And(Vec<Node>),
    Or(Vec<Node>),
    If(Box<[Node; 3]>),
    List(Vec<(Node, bool)>),
    Map(Vec<(Node, Node, bool)>),
    Struct { name: String, fields: Vec<StructField> },
    Macro(Box<Macro>),
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct StructField {
    pub(crate) at: u32,
    pub(crate) name: String,
    pub(crate) value: Node,
    pub(crate) optional: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MacroKind {
    All,
    Exists,
    ExistsOne,
    Map,
    Filter,
    TransformList,
    TransformMap,
    TransformMapEntry,
    Bind,
    OptMap,
    OptFlatMap,
    SortBy,
}

/// `range.kind(first, second, condition, body)`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Macro {
    pub(crate) kind: MacroKind,
    pub(crate) range: Node,
    pub(crate) first: String,
    pub(crate) second: Option<String>,
    pub(crate) condition: Option<Node>,
    pub(crate) body: Node,
}

impl Node {
    /// The parts directly below.
    pub(crate) fn children(&self) -> Vec<&Node> {
        match &self.expr {
            Expr::Literal(_) | Expr::Ident(_) => Vec::new(),
            Expr::Select { of, .. } | Expr::Not(of) | Expr::Negate(of) => vec![of],
            Expr::Index { of, index, .. } => vec![of, index],
            Expr::Call { target, args, .. } => target.iter().map(|t| &**t).chain(args).collect(),
            Expr::Binary(_, a, b) => vec![a, b],
            Expr::And(parts) | Expr::Or(parts) => parts.iter().collect(),
            Expr::If(parts) => parts.iter().collect(),
            Expr::List(items) => items.iter().map(|(item, _)| item).collect(),
            Expr::Map(entries) => entries.iter().flat_map(|(k, v, _)| [k, v]).collect(),
            Expr::Struct { fields, .. } => fields.iter().map(|f| &f.value).collect(),
            Expr::Macro(m) => [Some(&m.range), m.condition.as_ref(), Some(&m.body)].into_iter().flatten().collect(),
        }
    }

    /// `a.b.c` as text, when that is all there is.
    pub(crate) fn dotted(&self) -> Option<String> {
        match &self.expr {
            Expr::Ident(name) => Some(name.clone()),
            Expr::Select { of, field, test: false, optional: false } => Some(format!("{}.{field}", of.dotted()?)),
            _ => None,
        }
    }

    /// The names that it gets from outside: of variables, and of the fields of `variables` with that before them.
    pub(crate) fn free_names(&self) -> Vec<String> {
        let mut names = Vec::new();
        collect(self, &mut Vec::new(), &mut names);
        names.sort_unstable();
        names.dedup();
        names
    }
}

fn collect<'a>(node: &'a Node, bound: &mut Vec<&'a str>, names: &mut Vec<String>) {
    match &node.expr {
        Expr::Ident(name) if !bound.contains(&name.as_str()) => names.push(name.clone()),
        Expr::Macro(m) => {
            collect(&m.range, bound, names);
            let before = bound.len();
            bound.push(&m.first);
            bound.extend(m.second.as_deref());
            m.condition.iter().for_each(|c| collect(c, bound, names));
            collect(&m.body, bound, names);
            bound.truncate(before);
        }
        _ => {
            if let Expr::Select { of, field, .. } = &node.expr
                && matches!(&of.expr, Expr::Ident(name) if name == "variables" || name == "authorizer")
            {
                names.extend(of.dotted().map(|of| format!("{of}.{field}")));
            }
            node.children().into_iter().for_each(|child| collect(child, bound, names));
        }
    }
}
