//! A small `make chaos` of the control plane: constant calls, and one fault after the other of the
//! coordinators and of the store that they share.

use std::time::Duration;

use harness::chaos::control::ControlFault;
use harness::chaos::control::rounds::{self, Trial};

/// What is promised of calls and of evictions holds on the slowest machine; times are for `make chaos`.
async fn keeps_its_promises(fault: ControlFault) {
    let trial = Trial {
        clients: 8,
        hold: Duration::from_millis(30),
        down: Duration::from_secs(5),
    };
    let (_world, settled, report) = rounds::run(fault, 1, trial).await.unwrap();
    println!("{}: {report:#?}", fault.name());
    let shown = &settled.found[..settled.found.len().min(5)];
    assert!(settled.found.is_empty(), "{shown:#?}");
    if !fault.harms_calls() {
        assert!(
            report.calls.failures.is_empty(),
            "{:?}",
            report.calls.failures
        );
    }
    assert_eq!((report.evictions, report.replaced), (0, false));
    assert!(report.arrivals.iter().all(Option::is_some), "{report:?}");
    assert!(report.calls.calls > 100, "{} calls", report.calls.calls);
}

#[tokio::test]
async fn a_coordinator_that_is_killed_costs_no_call_and_changes_go_on() {
    keeps_its_promises(ControlFault::CoordinatorKill).await;
}

#[tokio::test]
async fn a_coordinator_that_stood_still_for_a_whole_lease_evicts_nobody() {
    keeps_its_promises(ControlFault::CoordinatorStop).await;
}

#[tokio::test]
async fn a_coordinator_that_was_cut_off_evicts_nobody() {
    if let Err(why) = harness::netns::Namespace::new() {
        println!("skipped: this machine allows no network namespace: {why:#}");
        return;
    }
    keeps_its_promises(ControlFault::CoordinatorCut).await;
}

#[tokio::test]
async fn the_loss_of_the_stores_leader_is_noticed_and_costs_no_decision() {
    keeps_its_promises(ControlFault::StoreLeaderKill).await;
}

#[tokio::test]
async fn calls_go_on_without_any_coordinator_and_changes_when_they_are_back() {
    keeps_its_promises(ControlFault::AllCoordinators).await;
}
