//! What is served at the moment: the set of kinds changes while the server runs, as custom resources come and go.
//!
//! Invariants: versions of one resource share one cache; a reader holds one consistent set for as long as it needs it; a
//! kind that is replaced keeps its cache, and with it its watchers.

use std::{collections::HashMap, sync::Arc};

use async_trait::async_trait;
use podium_api::{
    ApiError, KindRef, Names, Object, Scope, SubresourceInfo, Verb,
    object::{AnyKind, SubresourceBehaviour},
};

use super::{
    Part,
    cache::{Cache, Entry},
};

/// Turns objects of one version into those of another.
#[async_trait]
pub(crate) trait Conversion: Send + Sync {
    /// The same objects, in the same order, as `to`.
    async fn convert(&self, objects: Vec<Arc<dyn Object>>, to: &KindRef) -> Result<Vec<Arc<dyn Object>>, ApiError>;
}

/// The conversions that a kind knows itself.
pub(crate) struct ByKind;

#[async_trait]
impl Conversion for ByKind {
    async fn convert(&self, objects: Vec<Arc<dyn Object>>, to: &KindRef) -> Result<Vec<Arc<dyn Object>>, ApiError> {
        let one = |object: Arc<dyn Object>| -> Result<Arc<dyn Object>, ApiError> {
            let (found, wanted) = (object.names(), to.names());
            if found.version == wanted.version && found.group == wanted.group {
                return Ok(object);
            }
            match object.kind().stored_as() {
                Some(hub) if is(&*hub, &wanted) => Ok(object.kind().to_stored(object.boxed_clone())?.into()),
                _ => Ok(to.from_stored(&*object)?.into()),
            }
        };
        objects.into_iter().map(one).collect()
    }
}

fn is(kind: &dyn AnyKind, names: &Names) -> bool {
    let own = kind.names();
    own.group == names.group && own.version == names.version && own.kind == names.kind
}

/// One version of a kind, as it is served.
pub(crate) struct Resource {
    pub(crate) kind: KindRef,
    pub(crate) names: Names,
    pub(crate) scope: Scope,
    pub(crate) subresources: Vec<SubresourceInfo>,
    pub(crate) cache: Arc<Cache>,
    /// How objects stored as another version are shown; `None`: there is no other version.
    conversion: Option<Arc<dyn Conversion>>,
}

impl Resource {
    pub(crate) fn new(kind: KindRef, cache: Arc<Cache>, conversion: Option<Arc<dyn Conversion>>) -> Self {
        let (names, scope, subresources) = (kind.names(), kind.scope(), kind.subresources());
        Self { kind, names, scope, subresources, cache, conversion }
    }

    /// What a subresource does, if there is one of this name.
    pub(crate) fn subresource(&self, name: &str) -> Option<SubresourceBehaviour> {
        self.subresources.iter().find(|s| s.name == name).map(|s| s.behaviour)
    }

    /// The part of an object that is read and written at a path; none for subresources that are something else.
    pub(crate) fn part(&self, subresource: &str) -> Option<Part> {
        if subresource.is_empty() {
            return Some(Part::Main);
        }
        let found = self.subresources.iter().find(|s| s.name == subresource)?;
        match found.behaviour {
            SubresourceBehaviour::Status => Some(Part::Status),
            SubresourceBehaviour::Part => Some(Part::Named(found.name)),
            SubresourceBehaviour::Verb(Verb::Finalize) => Some(Part::Finalize),
            SubresourceBehaviour::Scale | SubresourceBehaviour::Verb(_) => None,
        }
    }

    pub(crate) fn not_found(&self, name: &str) -> ApiError {
        ApiError::not_found(&self.names, name)
    }

    /// Whether stored objects may be of another version, so that they have to go through [`Resource::view`].
    pub(crate) fn converts(&self) -> bool {
        self.conversion.is_some()
    }

    /// One object as this version shows it.
    ///
    /// # Errors
    /// What the conversion says.
    pub(crate) async fn view(&self, entry: Arc<Entry>) -> Result<Arc<Entry>, ApiError> {
        if self.shows(&entry) {
            return Ok(entry);
        }
        let one = self.view_all(vec![entry]).await?.pop();
        one.ok_or_else(|| ApiError::internal("a conversion lost an object"))
    }

    /// Objects as this version shows them, in the same order.
    ///
    /// # Errors
    /// What the conversion says.
    pub(crate) async fn view_all(&self, entries: Vec<Arc<Entry>>) -> Result<Vec<Arc<Entry>>, ApiError> {
        let Some(conversion) = &self.conversion else { return Ok(entries) };
        let other: Vec<Arc<dyn Object>> = entries.iter().filter(|e| !self.shows(e)).map(|e| e.object.clone()).collect();
        if other.is_empty() {
            return Ok(entries);
        }
        let mut converted = conversion.convert(other, &self.kind).await?.into_iter();
        let show = |entry: Arc<Entry>| {
            if self.shows(&entry) {
                return Ok(entry);
            }
            let object = converted.next().ok_or_else(|| ApiError::internal("a conversion lost an object"))?;
            entry.showing(object).map(Arc::new)
        };
        entries.into_iter().map(show).collect()
    }

    /// The form in which an object of this version is stored.
    ///
    /// # Errors
    /// What the conversion says.
    pub(crate) async fn to_stored(&self, object: Box<dyn Object>) -> Result<Box<dyn Object>, ApiError> {
        let stored = self.cache.kind();
        match &self.conversion {
            Some(conversion) if !is(&*stored, &self.names) => {
                let one = conversion.convert(vec![object.into()], &stored).await?.pop();
                one.map(|o| o.boxed_clone()).ok_or_else(|| ApiError::internal("a conversion lost an object"))
            }
            _ => Ok(object),
        }
    }

    fn shows(&self, entry: &Entry) -> bool {
        self.conversion.is_none() || {
            let found = entry.object.names();
            found.version == self.names.version && found.group == self.names.group
        }
    }
}

/// A consistent set of everything that is served.
#[derive(Default)]
pub(crate) struct Served {
    /// By plural.
    by_plural: HashMap<&'static str, Vec<Arc<Resource>>>,
    /// In the order in which they were added.
    all: Vec<Arc<Resource>>,
    /// Goes up with each change.
    pub(crate) generation: u64,
}

impl Served {
    /// Every version of every kind.
    pub(crate) fn all(&self) -> &[Arc<Resource>] {
        &self.all
    }

    /// The kinds.
    pub(crate) fn kinds(&self) -> Vec<KindRef> {
        self.all.iter().map(|r| r.kind.clone()).collect()
    }

    /// What is at a place in the paths.
    pub(crate) fn find(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Resource>> {
        self.by_plural.get(plural)?.iter().find(|r| r.names.group == group && r.names.version == version)
    }

    /// The resource that a kind is served as.
    pub(crate) fn find_kind(&self, group: &str, version: &str, kind: &str) -> Option<&Arc<Resource>> {
        let is = |n: &Names| n.kind == kind && n.group == group && n.version == version;
        self.all.iter().find(|r| is(&r.names))
    }

    /// The same set with the versions of one resource replaced (by none, to remove it).
    pub(crate) fn with(&self, group: &str, plural: &str, resources: Vec<Arc<Resource>>) -> Self {
        let mut all = self.all.clone();
        let same = |r: &Arc<Resource>| r.names.group == group && r.names.plural == plural;
        let at = all.iter().position(same).unwrap_or(all.len());
        all.retain(|r| !same(r));
        let at = at.min(all.len());
        all.splice(at..at, resources);
        Self::new(all, self.generation + 1)
    }

    pub(crate) fn new(all: Vec<Arc<Resource>>, generation: u64) -> Self {
        let mut by_plural: HashMap<_, Vec<_>> = HashMap::new();
        for resource in &all {
            by_plural.entry(resource.names.plural).or_default().push(resource.clone());
        }
        Self { by_plural, all, generation }
    }
}
