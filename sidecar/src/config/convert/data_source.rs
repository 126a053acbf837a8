//! `DataSource`: text and bytes that stand in the configuration, in a file, or in the environment.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use outrigger_proto::envoy::config::core::v3::DataSource;
use outrigger_proto::envoy::config::core::v3::data_source::Specifier;

use crate::config::Problems;

use super::common::unsupported;

/// Most bytes that are read from a file: far more than any certificate bundle, and not a device without an end.
const MAX_BYTES: u64 = 16 << 20;

/// What a data source holds. Files are read now, once.
pub(super) fn read(problems: &mut Problems, proto: DataSource) -> Option<Vec<u8>> {
    let DataSource { watched_directory, specifier } = proto;
    unsupported!(problems; watched_directory);
    match specifier {
        Some(Specifier::InlineString(text)) => Some(text.into_bytes()),
        Some(Specifier::InlineBytes(bytes)) => Some(bytes),
        Some(Specifier::Filename(name)) => {
            problems.field("filename", |problems| file(problems, Path::new(&name)))
        }
        Some(Specifier::EnvironmentVariable(name)) => {
            problems.field("environment_variable", |problems| variable(problems, &name))
        }
        None => {
            problems.reject(
                "one of filename, inline_bytes, inline_string, environment_variable is required",
            );
            None
        }
    }
}

fn file(problems: &mut Problems, path: &Path) -> Option<Vec<u8>> {
    if path.as_os_str().is_empty() {
        problems.reject("must not be empty");
        return None;
    }
    let mut bytes = Vec::new();
    let read = File::open(path)
        .and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|error| format!("cannot read {}: {error}", path.display()));
    match read {
        Err(reason) => problems.reject(reason),
        Ok(length) if length as u64 > MAX_BYTES => {
            problems.reject(format!("{} is larger than {} MiB", path.display(), MAX_BYTES >> 20))
        }
        Ok(_) => return Some(bytes),
    }
    None
}

fn variable(problems: &mut Problems, name: &str) -> Option<Vec<u8>> {
    use std::os::unix::ffi::OsStringExt;
    if name.is_empty() {
        problems.reject("must not be empty");
        return None;
    }
    let value = std::env::var_os(name);
    if value.is_none() {
        problems.reject(format!("the environment has no variable {name}"));
    }
    value.map(OsStringExt::into_vec)
}
