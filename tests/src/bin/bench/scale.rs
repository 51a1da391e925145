//! More instances and more agents: what a call costs must not grow with them.

use bytes::Bytes;
use harness::mesh::{Mesh, Plan};
use harness::process;

use crate::caller::Caller;
use crate::report::Target;
use crate::side::{Bench, PAYLOAD, Side, Targets};

const COUNTS: [usize; 3] = [2, 4, 8];
const IN_FLIGHT: usize = 256;

/// Plugins `wide-n` have n instances on the first of eight agents, plugins `far-n` one on each of n
/// agents. Each is compared with the one instance of `wide-1`.
pub async fn scale(bench: &mut Bench) -> anyhow::Result<()> {
    if !bench.wants("scale") {
        return Ok(());
    }
    let mesh = start().await;
    let caller = Caller::connect(&mesh).await?;
    let payload = Bytes::from(vec![b'x'; PAYLOAD]);
    let mut pids = vec![std::process::id(), mesh.nats.process.pid()];
    for agent in &mesh.agents {
        pids.push(agent.pid());
        pids.extend(process::descendants(agent.pid()));
    }
    let side = |plugin: &str| {
        anyhow::Ok(Side {
            call: caller.echo(plugin, payload.clone())?,
            pids: pids.clone(),
        })
    };
    let one = side("wide-1")?;
    let targets = Targets {
        cpu: Some(Target::RatioAtMost(1.15)),
        ..Targets::default()
    };
    for (kind, id) in [("wide", "scale.instances"), ("far", "scale.agents")] {
        if !bench.wants(id) {
            continue;
        }
        for count in COUNTS {
            let many = side(&format!("{kind}-{count}"))?;
            let (many, one) = bench.turns(IN_FLIGHT, &many, &one).await;
            let case = format!("{count} beside 1, {IN_FLIGHT} in flight");
            bench.calls(id, &case, &many, &one, targets);
        }
    }
    Ok(())
}

async fn start() -> Mesh {
    let mut plan = Plan::new().quiet();
    for agent in 0..8 {
        plan = plan.agent(&format!("node-{agent}"));
        for count in [1, 2, 4, 8] {
            let (wide, far) = (format!("wide-{count}"), format!("far-{count}"));
            if agent == 0 {
                plan = plan.plugin_as(&wide, &["probe"], &[("PROBE_NAME", &wide)]);
                plan = plan.instances(count);
            }
            if agent < count && count > 1 {
                plan = plan.plugin_as(&far, &["probe"], &[("PROBE_NAME", &far)]);
            }
        }
    }
    let mesh = plan.start().await;
    mesh.wait_instances(1 + 2 * (2 + 4 + 8)).await;
    mesh
}
