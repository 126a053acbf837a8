//! [`Config`]: every object of the mesh at one revision.

use super::{Endpoint, Gateway, Kind, Mesh, Object, Policy, Route, Service};
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

/// Every object of the mesh at one revision: consistent (what is referred to exists) and immutable. A clone costs a
/// reference count.
#[derive(Debug, Clone, Default)]
pub struct Config {
    revision: u64,
    tables: Arc<Tables>,
}

/// Objects of one kind by name, each with the revision that last changed it.
type Table<T> = BTreeMap<String, Entry<T>>;

#[derive(Debug, Clone)]
struct Entry<T> {
    revision: u64,
    object: Arc<T>,
}

/// A change copies only the tables of the kinds it touches.
#[derive(Debug, Clone, Default)]
struct Tables {
    meshes: Arc<Table<Mesh>>,
    services: Arc<Table<Service>>,
    routes: Arc<Table<Route>>,
    gateways: Arc<Table<Gateway>>,
    policies: Arc<Table<Policy>>,
    endpoints: Arc<Table<Endpoint>>,
}

static DEFAULT_MESH: LazyLock<Arc<Mesh>> = LazyLock::new(Arc::default);

impl Config {
    /// The revision: it grows by one with every transaction. 0 before the first.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The mesh's defaults, those of [`Mesh::default`] if they were never applied.
    pub fn mesh(&self) -> &Arc<Mesh> {
        self.tables.meshes.values().next().map_or(&*DEFAULT_MESH, |entry| &entry.object)
    }

    /// A service.
    pub fn service(&self, name: &str) -> Option<&Arc<Service>> {
        self.tables.services.get(name).map(|entry| &entry.object)
    }

    /// Services, by name.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.tables.services.values().map(|entry| &entry.object)
    }

    /// Routes, by name.
    pub fn routes(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.tables.routes.values().map(|entry| &entry.object)
    }

    /// A gateway.
    pub fn gateway(&self, name: &str) -> Option<&Arc<Gateway>> {
        self.tables.gateways.get(name).map(|entry| &entry.object)
    }

    /// Gateways, by name.
    pub fn gateways(&self) -> impl Iterator<Item = &Arc<Gateway>> {
        self.tables.gateways.values().map(|entry| &entry.object)
    }

    /// Policies, by name.
    pub fn policies(&self) -> impl Iterator<Item = &Arc<Policy>> {
        self.tables.policies.values().map(|entry| &entry.object)
    }

    /// Endpoints without a sidecar, by name.
    pub fn endpoints(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.tables.endpoints.values().map(|entry| &entry.object)
    }

    /// Any object, with the revision that last changed it.
    pub fn object(&self, kind: Kind, name: &str) -> Option<(Object, u64)> {
        let tables = &self.tables;
        match kind {
            Kind::Mesh => find(&tables.meshes, name, Object::Mesh),
            Kind::Service => find(&tables.services, name, Object::Service),
            Kind::Route => find(&tables.routes, name, Object::Route),
            Kind::Gateway => find(&tables.gateways, name, Object::Gateway),
            Kind::Policy => find(&tables.policies, name, Object::Policy),
            Kind::Endpoint => find(&tables.endpoints, name, Object::Endpoint),
        }
    }

    /// The objects of a kind by name, each with the revision that last changed it.
    pub fn objects_of(&self, kind: Kind) -> Vec<(Object, u64)> {
        let tables = &self.tables;
        match kind {
            Kind::Mesh => list(&tables.meshes, Object::Mesh),
            Kind::Service => list(&tables.services, Object::Service),
            Kind::Route => list(&tables.routes, Object::Route),
            Kind::Gateway => list(&tables.gateways, Object::Gateway),
            Kind::Policy => list(&tables.policies, Object::Policy),
            Kind::Endpoint => list(&tables.endpoints, Object::Endpoint),
        }
    }

    /// Every object, kind by kind in the order of [`Kind::ALL`], each with the revision that last changed it.
    pub fn objects(&self) -> impl Iterator<Item = (Object, u64)> {
        Kind::ALL.into_iter().flat_map(|kind| self.objects_of(kind))
    }

    /// This configuration after some changes, at `revision`. Nothing is validated here.
    #[must_use]
    pub fn with(&self, changes: &[Change], revision: u64) -> Self {
        let mut tables = (*self.tables).clone();
        for change in changes {
            match change {
                Change::Put(object) => tables.put(object.clone(), revision),
                Change::Delete(kind, name) => tables.remove(*kind, name),
            }
        }
        Self { revision, tables: Arc::new(tables) }
    }

    /// As it was read back: objects with the revisions that last changed them.
    pub fn restored(revision: u64, objects: impl IntoIterator<Item = (Object, u64)>) -> Self {
        let mut tables = Tables::default();
        for (object, changed) in objects {
            tables.put(object, changed);
        }
        Self { revision, tables: Arc::new(tables) }
    }
}

/// One change of a configuration.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// The object is created, or replaces the one with its kind and name.
    Put(Object),
    /// The object with this kind and name is gone.
    Delete(Kind, String),
}

impl Tables {
    fn put(&mut self, object: Object, revision: u64) {
        fn insert<T: Clone>(table: &mut Arc<Table<T>>, name: &str, object: Arc<T>, revision: u64) {
            Arc::make_mut(table).insert(name.to_owned(), Entry { revision, object });
        }
        let name = object.name().to_owned();
        match object {
            Object::Mesh(it) => insert(&mut self.meshes, &name, it, revision),
            Object::Service(it) => insert(&mut self.services, &name, it, revision),
            Object::Route(it) => insert(&mut self.routes, &name, it, revision),
            Object::Gateway(it) => insert(&mut self.gateways, &name, it, revision),
            Object::Policy(it) => insert(&mut self.policies, &name, it, revision),
            Object::Endpoint(it) => insert(&mut self.endpoints, &name, it, revision),
        }
    }

    fn remove(&mut self, kind: Kind, name: &str) {
        match kind {
            Kind::Mesh => drop(Arc::make_mut(&mut self.meshes).remove(name)),
            Kind::Service => drop(Arc::make_mut(&mut self.services).remove(name)),
            Kind::Route => drop(Arc::make_mut(&mut self.routes).remove(name)),
            Kind::Gateway => drop(Arc::make_mut(&mut self.gateways).remove(name)),
            Kind::Policy => drop(Arc::make_mut(&mut self.policies).remove(name)),
            Kind::Endpoint => drop(Arc::make_mut(&mut self.endpoints).remove(name)),
        }
    }
}

fn find<T>(table: &Table<T>, name: &str, make: fn(Arc<T>) -> Object) -> Option<(Object, u64)> {
    table.get(name).map(|entry| (make(Arc::clone(&entry.object)), entry.revision))
}

fn list<T>(table: &Table<T>, make: fn(Arc<T>) -> Object) -> Vec<(Object, u64)> {
    table.values().map(|entry| (make(Arc::clone(&entry.object)), entry.revision)).collect()
}
