//! More instances and more agents: what a call costs must grow no more than that of the bare parts, spread
//! over as many processes.

use bytes::Bytes;
use harness::mesh::{Mesh, Plan};
use harness::{load, process};

use crate::bare;
use crate::caller::Caller;
use crate::clients;
use crate::parts::{Composition, answers};
use crate::report::Target;
use crate::side::{Bench, PAYLOAD, Side, Targets};

const COUNTS: [usize; 4] = [1, 2, 4, 8];
const IN_FLIGHT: usize = 256;

/// A ratio that is no more than so many times another is taken for the same.
const FLAT: f64 = 1.15;

/// Plugins `wide-n` have n instances on the first of eight agents, plugins `far-n` one on each of n
/// agents. Beside them: one composition with n echoes, and n compositions with one each.
pub async fn scale(bench: &mut Bench) -> anyhow::Result<()> {
    if !bench.wants("scale") {
        return Ok(());
    }
    let mesh = start().await;
    let caller = Caller::connect(&mesh).await?;
    let mut pids = vec![std::process::id(), mesh.nats.process.pid()];
    for agent in &mesh.agents {
        pids.push(agent.pid());
        pids.extend(process::descendants(agent.pid()));
    }
    for (kind, id) in [("wide", "scale.instances"), ("far", "scale.agents")] {
        if !bench.wants(id) {
            continue;
        }
        let mut alone = None;
        for count in COUNTS {
            let plugin = if count == 1 {
                "wide-1"
            } else {
                &format!("{kind}-{count}")
            };
            let ours = Side {
                call: caller.echo(plugin, payload())?,
                pids: pids.clone(),
            };
            let (middles, echoes) = if kind == "wide" {
                (1, count)
            } else {
                (count, 1)
            };
            let (bare, _parts) = compositions(bench, &mesh, middles, echoes).await?;
            let (ours, bare) = bench.turns(IN_FLIGHT, &ours, &bare).await;
            // What it costs beside the bare parts when there is one of each: that shall not grow.
            let ratio = load::median(&ours).cpu_us / load::median(&bare).cpu_us;
            let targets = Targets {
                cpu: alone
                    .map(|alone: f64| Target::RatioAtMost((alone * FLAT * 100.0).round() / 100.0)),
                ..Targets::default()
            };
            alone.get_or_insert(ratio);
            let case = format!("{count}, {IN_FLIGHT} in flight");
            bench.calls(id, &case, &ours, &bare, targets);
        }
    }
    Ok(())
}

fn payload() -> Bytes {
    Bytes::from(vec![b'x'; PAYLOAD])
}

/// So many compositions, called in turns.
async fn compositions(
    bench: &Bench,
    mesh: &Mesh,
    middles: usize,
    echoes: usize,
) -> anyhow::Result<(Side, Vec<Composition>)> {
    let (folder, url) = (bench.folder.path(), mesh.nats.url());
    let subjects = &bare::COMPOSED[..middles];
    let (mut parts, mut pids) = (Vec::new(), Vec::new());
    for (place, subject) in subjects.iter().enumerate() {
        let part = Composition::start(folder, &url, subject, echoes).await;
        answers(&clients::nats(&url, &subjects[place..=place], payload()).await?).await;
        pids.extend(part.pids(mesh));
        parts.push(part);
    }
    // This process and the broker take part in each.
    pids.sort_unstable();
    pids.dedup();
    let call = clients::nats(&url, subjects, payload()).await?;
    Ok((Side { call, pids }, parts))
}

async fn start() -> Mesh {
    let mut plan = Plan::new().quiet();
    for agent in 0..8 {
        plan = plan.agent(&format!("node-{agent}"));
        for count in COUNTS {
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
