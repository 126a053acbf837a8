//! What to try next, said where a demo is started.

use super::mesh::Mesh;
use super::topology::HOST;
use crate::client::DEFAULT_API;

/// A few commands that work against this demo, ready to be copied.
pub(super) fn guide(mesh: &Mesh) -> String {
    let gateway = format!("{HOST}:{}", mesh.gateway().port());
    let program = std::env::args().next().unwrap_or_else(|| "outrigger".to_owned());
    let mut lines = Vec::new();
    if mesh.api().url() != DEFAULT_API {
        lines.push(format!("export OUTRIGGER_API={}", mesh.api().url()));
    }
    lines.push(format!("curl -i http://{gateway}/orders"));
    lines.push(format!("curl -i -H 'x-canary: 1' http://{gateway}/orders   # always v2"));
    lines.push(format!("{program} status"));
    lines.push(format!("{program} endpoints --watch"));
    if let Some(address) =
        mesh.instance("api-2").ok().and_then(|instance| instance.switches_address(mesh.network()))
    {
        lines.push(format!("curl '{address}/fail?rate=1'   # then watch api-2 being ejected"));
    }
    lines.push(format!(
        "{program} apply -f examples/broken/three-errors.yaml   # refused, and says why"
    ));
    lines.push(format!("{program} get routes"));
    lines.join("\n")
}
