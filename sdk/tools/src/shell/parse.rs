//! The shell's grammar: from words and operators to what is to be run.

pub use super::tokens::UNFINISHED;
use super::tokens::{Token, tokens};

/// Deepest nesting.
const DEPTH_MAX: u32 = 64;

/// Something to run.
#[derive(Debug, Clone, PartialEq)]
pub enum Item {
    Simple(Simple),
    Pipe(Vec<Item>),
    And(Box<Item>, Box<Item>),
    Or(Box<Item>, Box<Item>),
    Not(Box<Item>),
    Group(Vec<Item>),
    /// In brackets: what it changes is forgotten.
    Subshell(Vec<Item>),
    If(Vec<(Vec<Item>, Vec<Item>)>, Vec<Item>),
    While {
        condition: Vec<Item>,
        until: bool,
        body: Vec<Item>,
    },
    For(String, Vec<String>, Vec<Item>),
    /// A word, and what is run when it fits one of several patterns.
    Case(String, Vec<(Vec<String>, Vec<Item>)>),
    Function(String, Box<Item>),
    /// With streams of its own.
    Redirected(Box<Item>, Vec<Redirect>),
    /// Followed by `&`.
    Later(Box<Item>),
}

/// One command.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Simple {
    pub assignments: Vec<(String, String)>,
    pub words: Vec<String>,
    pub redirects: Vec<Redirect>,
}

/// Where a stream goes.
#[derive(Debug, Clone, PartialEq)]
pub struct Redirect {
    /// 0 is input, 1 is output, 2 is errors.
    pub stream: usize,
    pub to: Target,
}

/// To or from where.
#[derive(Debug, Clone, PartialEq)]
pub enum Target {
    Input(String),
    Output(String),
    Append(String),
    /// Output and errors into one file; whether to its end.
    Both(String, bool),
    /// Where another stream goes.
    Stream(String),
    /// A text, and whether variables in it are looked up.
    Text(String, bool),
    /// A word of the script.
    Word(String),
}

/// Reads a text.
///
/// # Errors
/// What cannot be meant; [`UNFINISHED`] when only its end is missing.
pub fn parse(text: &str) -> Result<Vec<Item>, String> {
    let mut parser = Parser { tokens: tokens(text)?, at: 0, depth: 0 };
    let items = parser.list(&[])?;
    match parser.peek() {
        None => Ok(items),
        Some(token) => Err(unexpected(token)),
    }
}

fn unexpected(token: &Token) -> String {
    match token {
        Token::Word(word) => format!("{word:?} is unexpected"),
        Token::Operator(operator) | Token::Redirect(_, operator) => format!("{operator:?} is unexpected"),
        Token::Document(..) => "a here-document is unexpected".to_owned(),
    }
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
    depth: u32,
}

impl Parser {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    fn is_operator(&self, operators: &[&str]) -> bool {
        matches!(self.peek(), Some(Token::Operator(o)) if operators.contains(o))
    }

    fn is_word(&self, words: &[&str]) -> bool {
        matches!(self.peek(), Some(Token::Word(w)) if words.contains(&w.as_str()))
    }

    fn take_operator(&mut self, operator: &str) -> bool {
        let found = self.is_operator(&[operator]);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, word: &str) -> Result<(), String> {
        match self.peek() {
            Some(Token::Word(found)) if found == word => {
                self.at += 1;
                Ok(())
            }
            Some(token) => Err(format!("{word} is expected: {}", unexpected(token))),
            None => Err(UNFINISHED.to_owned()),
        }
    }

    fn word(&mut self) -> Result<String, String> {
        match self.peek().cloned() {
            Some(Token::Word(word)) => {
                self.at += 1;
                Ok(word)
            }
            Some(token) => Err(unexpected(&token)),
            None => Err(UNFINISHED.to_owned()),
        }
    }

    fn gap(&mut self) {
        while self.is_operator(&[";", "\n"]) {
            self.at += 1;
        }
    }

    fn lines(&mut self) {
        while self.take_operator("\n") {}
    }

    /// Commands up to one of these words, to a bracket that closes, or to the end.
    fn list(&mut self, ends: &[&str]) -> Result<Vec<Item>, String> {
        let mut items = Vec::new();
        loop {
            self.gap();
            if self.peek().is_none() || self.is_word(ends) || self.is_operator(&[")", ";;"]) {
                return Ok(items);
            }
            let item = self.and_or()?;
            if self.take_operator("&") {
                items.push(Item::Later(Box::new(item)));
                continue;
            }
            items.push(item);
            if !self.is_operator(&[";", "\n", ")", ";;"])
                && let Some(token) = self.peek()
            {
                return Err(unexpected(token));
            }
        }
    }

    fn and_or(&mut self) -> Result<Item, String> {
        let mut item = self.pipe()?;
        loop {
            let and = self.is_operator(&["&&"]);
            if !and && !self.is_operator(&["||"]) {
                return Ok(item);
            }
            self.at += 1;
            self.lines();
            let next = Box::new(self.pipe()?);
            item = if and { Item::And(Box::new(item), next) } else { Item::Or(Box::new(item), next) };
        }
    }

    fn pipe(&mut self) -> Result<Item, String> {
        if self.is_word(&["!"]) {
            self.at += 1;
            return Ok(Item::Not(Box::new(self.pipe()?)));
        }
        let mut items = vec![self.command()?];
        while self.take_operator("|") {
            self.lines();
            items.push(self.command()?);
        }
        if items.len() > 1 { Ok(Item::Pipe(items)) } else { items.pop().ok_or_else(|| UNFINISHED.to_owned()) }
    }

    fn command(&mut self) -> Result<Item, String> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err("nested too deeply".to_owned());
        }
        let item = self.compound()?;
        self.depth -= 1;
        let mut redirects = Vec::new();
        while let Some(redirect) = self.redirect()? {
            redirects.push(redirect);
        }
        Ok(if redirects.is_empty() { item } else { Item::Redirected(Box::new(item), redirects) })
    }

    fn compound(&mut self) -> Result<Item, String> {
        let word = match self.peek() {
            None => return Err(UNFINISHED.to_owned()),
            Some(Token::Operator("(")) => {
                self.at += 1;
                let items = self.list(&[])?;
                return self.closed(Item::Subshell(items));
            }
            Some(Token::Word(word)) => word.clone(),
            Some(_) => return self.simple(),
        };
        match word.as_str() {
            "{" => {
                self.at += 1;
                let items = self.list(&["}"])?;
                self.expect("}")?;
                Ok(Item::Group(items))
            }
            "if" => self.if_else(),
            "while" | "until" => self.while_do(),
            "for" => self.for_in(),
            "case" => self.case(),
            // The ends of what has not begun.
            "then" | "elif" | "else" | "fi" | "do" | "done" | "esac" | "}" => Err(format!("{word:?} is unexpected")),
            "function" => {
                self.at += 1;
                self.function()
            }
            _ if is_name(&word) && self.tokens.get(self.at + 1) == Some(&Token::Operator("(")) => self.function(),
            _ => self.simple(),
        }
    }

    fn closed(&mut self, item: Item) -> Result<Item, String> {
        if self.take_operator(")") {
            return Ok(item);
        }
        Err(self.peek().map_or_else(|| UNFINISHED.to_owned(), unexpected))
    }

    fn function(&mut self) -> Result<Item, String> {
        let name = self.word()?;
        if self.take_operator("(") && !self.take_operator(")") {
            return Err(self.peek().map_or_else(|| UNFINISHED.to_owned(), unexpected));
        }
        self.lines();
        Ok(Item::Function(name, Box::new(self.command()?)))
    }

    fn if_else(&mut self) -> Result<Item, String> {
        let mut branches = Vec::new();
        let mut otherwise = Vec::new();
        loop {
            self.at += 1;
            let condition = self.list(&["then"])?;
            self.expect("then")?;
            branches.push((condition, self.list(&["elif", "else", "fi"])?));
            if self.is_word(&["elif"]) {
                continue;
            }
            if self.is_word(&["else"]) {
                self.at += 1;
                otherwise = self.list(&["fi"])?;
            }
            self.expect("fi")?;
            return Ok(Item::If(branches, otherwise));
        }
    }

    fn while_do(&mut self) -> Result<Item, String> {
        let until = self.is_word(&["until"]);
        self.at += 1;
        let condition = self.list(&["do"])?;
        Ok(Item::While { condition, until, body: self.body()? })
    }

    fn body(&mut self) -> Result<Vec<Item>, String> {
        self.expect("do")?;
        let body = self.list(&["done"])?;
        self.expect("done")?;
        Ok(body)
    }

    fn for_in(&mut self) -> Result<Item, String> {
        self.at += 1;
        let name = self.word()?;
        let mut words = Vec::new();
        self.lines();
        if self.is_word(&["in"]) {
            self.at += 1;
            while let Some(Token::Word(word)) = self.peek().cloned() {
                words.push(word);
                self.at += 1;
            }
        } else {
            words.push("\"$@\"".to_owned());
        }
        self.gap();
        Ok(Item::For(name, words, self.body()?))
    }

    fn case(&mut self) -> Result<Item, String> {
        self.at += 1;
        let word = self.word()?;
        self.lines();
        self.expect("in")?;
        let mut arms = Vec::new();
        loop {
            self.gap();
            if self.is_word(&["esac"]) {
                self.at += 1;
                return Ok(Item::Case(word, arms));
            }
            self.take_operator("(");
            let mut patterns = vec![self.word()?];
            while self.take_operator("|") {
                patterns.push(self.word()?);
            }
            if !self.take_operator(")") {
                return Err(self.peek().map_or_else(|| UNFINISHED.to_owned(), unexpected));
            }
            arms.push((patterns, self.list(&["esac"])?));
            if !self.take_operator(";;") && !self.is_word(&["esac"]) {
                return Err(self.peek().map_or_else(|| UNFINISHED.to_owned(), unexpected));
            }
        }
    }

    fn redirect(&mut self) -> Result<Option<Redirect>, String> {
        let found = match self.peek() {
            Some(Token::Document(text, expanded)) => {
                let to = Target::Text(text.clone(), *expanded);
                self.at += 1;
                return Ok(Some(Redirect { stream: 0, to }));
            }
            Some(Token::Redirect(stream, operator)) => (*stream, *operator),
            _ => return Ok(None),
        };
        self.at += 1;
        let word = self.word()?;
        let (stream, to) = match found.1 {
            "<" => (0, Target::Input(word)),
            "<<<" => (0, Target::Word(word)),
            "<&" => (0, Target::Stream(word)),
            ">" | ">|" => (1, Target::Output(word)),
            ">>" => (1, Target::Append(word)),
            ">&" => (1, Target::Stream(word)),
            operator => (1, Target::Both(word, operator == "&>>")),
        };
        Ok(Some(Redirect { stream: found.0.unwrap_or(stream), to }))
    }

    fn simple(&mut self) -> Result<Item, String> {
        let mut simple = Simple::default();
        // Between its brackets `&&`, `||`, `<` and `>` are parts of a condition.
        let condition = self.is_word(&["[["]);
        loop {
            if !condition && let Some(redirect) = self.redirect()? {
                simple.redirects.push(redirect);
                continue;
            }
            match self.peek().cloned() {
                Some(Token::Word(word)) => {
                    self.at += 1;
                    match word.split_once('=') {
                        Some((name, value)) if simple.words.is_empty() && is_name(name) => {
                            simple.assignments.push((name.to_owned(), value.to_owned()));
                        }
                        _ => simple.words.push(word),
                    }
                    if condition && simple.words.last().is_some_and(|last| last == "]]") {
                        break;
                    }
                }
                Some(Token::Operator(operator @ ("&&" | "||"))) if condition => {
                    self.at += 1;
                    simple.words.push(if operator == "&&" { "-a" } else { "-o" }.to_owned());
                }
                _ => break,
            }
        }
        if simple == Simple::default() {
            return Err(self.peek().map_or_else(|| UNFINISHED.to_owned(), unexpected));
        }
        Ok(Item::Simple(simple))
    }
}

pub fn is_name(text: &str) -> bool {
    let mut chars = text.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}
