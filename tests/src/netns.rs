//! A network namespace with one cable to this one, which can be cut: where a process is put that is to
//! be cut off without anybody closing a connection. Needs root and `ip`.

use std::process::Command;

use anyhow::{Context as _, ensure};

/// A namespace; dropping it removes it.
pub struct Namespace {
    name: String,
    cable: String,
    net: String,
}

impl Namespace {
    /// Makes one.
    ///
    /// # Errors
    /// Why this machine does not allow it.
    pub fn new() -> anyhow::Result<Self> {
        let tag = format!("{:x}{:x}", std::process::id(), fastrand::u16(..0xfff));
        let net = format!("10.{}.{}", fastrand::u8(100..250), fastrand::u8(..));
        let namespace = Self {
            name: format!("pm-{tag}"),
            // An interface's name has 15 bytes at most.
            cable: format!("pm{tag}"),
            net,
        };
        let Self { name, cable, net } = &namespace;
        ip(&["netns", "add", name])?;
        let inner = format!("{cable}i");
        ip(&[
            "link", "add", cable, "type", "veth", "peer", "name", &inner, "netns", name,
        ])?;
        ip(&["addr", "add", &format!("{net}.1/30"), "dev", cable])?;
        ip(&["link", "set", cable, "up"])?;
        ip(&[
            "-n",
            name,
            "addr",
            "add",
            &format!("{net}.2/30"),
            "dev",
            &inner,
        ])?;
        ip(&["-n", name, "link", "set", "lo", "up"])?;
        namespace.set(true)?;
        ip(&["-n", name, "link", "set", &inner, "up"])?;
        Ok(namespace)
    }

    /// What stands before a command that is to run in it.
    pub fn prefix(&self) -> Vec<String> {
        ["ip", "netns", "exec", &self.name]
            .map(str::to_owned)
            .into()
    }

    /// Where those outside find those inside.
    pub fn inside(&self) -> String {
        format!("{}.2", self.net)
    }

    /// Where those inside find those outside, who must listen everywhere.
    pub fn outside(&self) -> String {
        format!("{}.1", self.net)
    }

    /// Cuts the cable, or mends it.
    ///
    /// # Errors
    /// What `ip` says.
    pub fn set(&self, up: bool) -> anyhow::Result<()> {
        ip(&["link", "set", &self.cable, if up { "up" } else { "down" }])
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // The cable goes with its end.
        let _ = ip(&["netns", "del", &self.name]);
        let _ = ip(&["link", "del", &self.cable]);
    }
}

fn ip(args: &[&str]) -> anyhow::Result<()> {
    let done = Command::new("ip").args(args).output();
    let done = done.context("`ip` can't be run")?;
    let why = String::from_utf8_lossy(&done.stderr);
    ensure!(
        done.status.success(),
        "ip {}: {}",
        args.join(" "),
        why.trim()
    );
    Ok(())
}
