//! What goes wrong, at its time.

use std::sync::Arc;

use tokio::time::{Instant, sleep, sleep_until};

use super::agent::AgentSlot;
use super::plan::Fault;
use super::plugin::Order;
use super::world::{Gateway, World};

/// Lets everything happen that the plan says.
pub(super) async fn play(world: Arc<World>, gateways: Vec<Arc<Gateway>>) {
    for (at, fault) in world.plan.faults.clone() {
        sleep_until(world.at(at)).await;
        world.say(&format!("fault: {fault:?}"));
        let one = one(world.clone(), gateways.clone(), fault);
        world.spawn("fault", one);
    }
}

async fn one(world: Arc<World>, gateways: Vec<Arc<Gateway>>, fault: Fault) {
    let mut rng = world.rng();
    let away = AgentSlot::away(&mut rng);
    match fault {
        Fault::PluginCrash(plugin) => world.plugins[plugin].order(Order::Crash),
        Fault::PluginHang(plugin, time) => world.plugins[plugin].order(Order::Hang(time)),
        Fault::PluginFlood(plugin) => world.plugins[plugin].order(Order::Flood),
        Fault::PluginGarbage(plugin) => world.plugins[plugin].order(Order::Garbage),
        Fault::PluginLeaves(plugin) => world.plugins[plugin].order(Order::Leave),
        Fault::PluginDrained(plugin) => {
            let slot = &world.plugins[plugin];
            if let (Some(up), Some(instance)) = (world.agents[slot.agent].now(), slot.instance()) {
                up.agent.drain_instance(instance, "it is updated").await;
            }
        }
        Fault::AgentCrash(agent) => world.agents[agent].crash(away),
        Fault::AgentDrain(agent) => world.agents[agent].drain(away).await,
        Fault::AgentFreeze(agent, time) => {
            let Some(up) = world.agents[agent].now() else {
                return;
            };
            up.gate.close_until(Instant::now() + time);
            up.line.hold(true, true);
            sleep(time).await;
            up.line.hold(false, false);
        }
        Fault::AgentCut(agent, time) => {
            if let Some(up) = world.agents[agent].now() {
                up.line.cut(time);
            }
        }
        Fault::AgentDeaf(agent, time) => {
            let Some(up) = world.agents[agent].now() else {
                return;
            };
            up.line.deafen();
            sleep(time).await;
            up.line.cut(std::time::Duration::ZERO);
        }
        Fault::AgentHeld(agent, out, back, time) => {
            let Some(up) = world.agents[agent].now() else {
                return;
            };
            up.line.hold(out, back);
            sleep(time).await;
            up.line.hold(false, false);
        }
        Fault::GatewayCut(gateway, time) => gateways[gateway].line.cut(time),
        Fault::GatewayDeaf(gateway, time) => {
            gateways[gateway].line.deafen();
            sleep(time).await;
            gateways[gateway].line.cut(std::time::Duration::ZERO);
        }
        Fault::GatewayHeld(gateway, out, back, time) => {
            gateways[gateway].line.hold(out, back);
            sleep(time).await;
            gateways[gateway].line.hold(false, false);
        }
        Fault::BrokerRestart(time) => {
            world.broker.stop();
            sleep(time).await;
            world.broker.start();
        }
        Fault::TablesLate(router, time) => {
            let late = Instant::now() + time;
            if let Some(gateway) = gateways.get(router) {
                gateway.tables.late_until(late);
            } else if let Some(up) = world.agents[router - gateways.len()].now() {
                up.tables.late_until(late);
            }
        }
        Fault::Evicted(agent, time) => {
            let agent = world.agents[agent].clone();
            agent.lose(&world, time).await;
        }
    }
}
