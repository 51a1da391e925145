//! What a plugin may say of a call that it was given: its code decides whether the call is sent again.

use super::*;

fn ended_with(error: common::Error) -> common::Error {
    let mut session = ready();
    let id = session.begin("one", Coming::default());
    match send(&mut session, id, Body::Error(error.into())).pop() {
        Some(Action::Ended { end: Err(end), .. }) => *end,
        other => panic!("{other:?}"),
    }
}

fn error(code: ErrorCode) -> common::Error {
    common::Error {
        code: code.number(),
        message: "no".to_owned(),
        ..common::Error::default()
    }
}

#[test]
fn an_error_about_a_call_that_the_plugin_made_means_that_this_call_was_processed() {
    let elsewhere = |change: fn(&mut common::Error)| {
        let mut error = error(ErrorCode::Overloaded);
        change(&mut error);
        error
    };
    for nested in [
        elsewhere(|error| error.instance = "another".to_owned()),
        elsewhere(|error| error.plugin = "another".to_owned()),
        // What the router of this node says when nobody takes the plugin's call.
        elsewhere(|error| error.node = "node-1".to_owned()),
    ] {
        let end = ended_with(nested.clone());
        assert_eq!(end.code, ErrorCode::PluginFailed.number());
        assert_eq!(end.details, r#"{"code":"overloaded"}"#);
        assert_eq!(
            (end.message, end.plugin, end.instance, end.node),
            (nested.message, nested.plugin, nested.instance, nested.node)
        );
    }
}

#[test]
fn a_plugin_may_refuse_a_call_in_its_own_name() {
    let mut named = error(ErrorCode::Overloaded);
    named.instance = "i".to_owned();
    for own in [error(ErrorCode::Overloaded), named] {
        let end = ended_with(own);
        assert_eq!(end.code, ErrorCode::Overloaded.number());
        assert_eq!(end.instance, "i");
        assert!(end.details.is_empty());
    }
    assert_eq!(
        ended_with(error(ErrorCode::NotFound)).code,
        ErrorCode::NotFound.number()
    );
}

#[test]
fn codes_that_are_the_meshs_are_not_a_plugins_to_say() {
    for code in [
        ErrorCode::InstanceGone,
        ErrorCode::StaleNode,
        ErrorCode::ProtocolViolation,
        ErrorCode::MalformedFrame,
        ErrorCode::NoCoordinator,
        ErrorCode::Disconnected,
        ErrorCode::InvalidManifest,
    ] {
        let end = ended_with(error(code));
        assert_eq!(end.code, ErrorCode::PluginFailed.number(), "{code}");
        assert_eq!((end.plugin.as_str(), end.instance.as_str()), ("time", "i"));
    }
}

#[test]
fn a_refused_own_call_does_not_look_like_the_plugins_own_refusal() {
    let session = ready();
    let refused = session.own_error(1, ErrorCode::Overloaded, "too many");
    let Action::Send(HostFrame {
        body: Some(host_frame::Body::Error(error)),
        ..
    }) = refused
    else {
        panic!("{refused:?}");
    };
    assert_eq!(ended_with(*error).code, ErrorCode::PluginFailed.number());
}
