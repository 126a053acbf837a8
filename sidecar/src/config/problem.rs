//! How rejections are collected: every problem of a resource at once, each with the path of its field.

use std::fmt;

/// One field that was refused, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// Path from the resource down, in proto field names: `filter_chains[0].filters[1].typed_config`.
    pub path: String,
    /// What is wrong, for the person who has to fix it.
    pub reason: String,
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            f.write_str(&self.reason)
        } else {
            write!(f, "{}: {}", self.path, self.reason)
        }
    }
}

/// The collector that a conversion carries along: it knows where it is and what was refused so far.
#[derive(Debug, Default)]
pub struct Problems {
    path: String,
    found: Vec<Rejected>,
}

impl Problems {
    /// An empty collector at the root of a resource.
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs `f` one field deeper.
    pub fn field<R>(&mut self, name: &str, f: impl FnOnce(&mut Self) -> R) -> R {
        let length = self.path.len();
        if length > 0 {
            self.path.push('.');
        }
        self.path.push_str(name);
        let result = f(self);
        self.path.truncate(length);
        result
    }

    /// Runs `f` at one element of the repeated field or map `name`; `key` is its index or key.
    pub fn element<R>(
        &mut self,
        name: &str,
        key: impl fmt::Display,
        f: impl FnOnce(&mut Self) -> R,
    ) -> R {
        let length = self.path.len();
        if length > 0 {
            self.path.push('.');
        }
        self.path.push_str(name);
        self.path.push_str(&format!("[{key}]"));
        let result = f(self);
        self.path.truncate(length);
        result
    }

    /// Refuses the place where the collector stands.
    pub fn reject(&mut self, reason: impl Into<String>) {
        self.found.push(Rejected { path: self.path.clone(), reason: reason.into() });
    }

    /// Refuses the field `name` below the place where the collector stands.
    pub fn reject_field(&mut self, name: &str, reason: impl Into<String>) {
        self.field(name, |problems| problems.reject(reason));
    }

    /// Refuses the field `name` if it is `present`: a field that this version does not implement.
    pub fn unsupported(&mut self, name: &str, present: bool) {
        if present {
            self.reject_field(name, "not supported by this version of Outrigger");
        }
    }

    /// Whether nothing was refused so far.
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// What was refused.
    pub fn into_vec(self) -> Vec<Rejected> {
        self.found
    }

    /// `value`, unless something was refused.
    ///
    /// # Errors
    /// With everything that was refused. A conversion that gives no value must have refused something; if it did not,
    /// that itself is reported.
    pub fn finish<T>(mut self, value: Option<T>) -> Result<T, Vec<Rejected>> {
        match value {
            Some(value) if self.found.is_empty() => Ok(value),
            Some(_) => Err(self.found),
            None => {
                if self.found.is_empty() {
                    self.reject("cannot be converted");
                }
                Err(self.found)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rejection_carries_the_full_path_and_siblings_do_not_inherit_it() {
        let mut problems = Problems::new();
        problems.element("filter_chains", 1, |problems| {
            problems.field("transport_socket", |problems| problems.reject("no"));
        });
        problems.reject_field("name", "empty");
        let found = problems.into_vec();
        assert_eq!(found[0].to_string(), "filter_chains[1].transport_socket: no");
        assert_eq!(found[1].to_string(), "name: empty");
    }
}
