//! `plugmesh split`: which versions of a plugin get which shares of its calls.

use mesh_core::split::{Group, Split};
use mesh_proto::admin::{ClearSplitRequest, ListSplitsRequest, SetSplitRequest, SplitView};
use semver::Version;
use serde_json::{Value, json};
use tonic::Code;

use super::change;
use super::plugin::unknown;
use crate::admin::Admin;
use crate::args::SplitArgs;
use crate::exit::Failure;
use crate::output::{self, Output};

/// Shows, sets or clears splits.
///
/// # Errors
/// A wrong share, or what the coordinator says.
pub async fn run(args: SplitArgs, output: Output) -> Result<(), Failure> {
    let name = args.name.unwrap_or_default();
    let split = match args.shares.as_slice() {
        [] => None,
        shares => Some(read(&name, shares, &args.header).map_err(Failure::data)?),
    };
    let mut admin = Admin::connect(&args.ask).await?;
    let reason = args.reason;
    if let Some(split) = split {
        let request = Admin::request(SetSplitRequest {
            split: Some(split.into()),
            reason,
        });
        let answer = admin.client().set_split(request).await;
        return change::show("split", &name, &mut admin, answer, output).await;
    }
    if args.clear {
        let request = Admin::request(ClearSplitRequest {
            name: name.clone(),
            reason,
        });
        let answer = admin.client().clear_split(request).await;
        return change::show("cleared", &name, &mut admin, answer, output).await;
    }
    let request = Admin::request(ListSplitsRequest {
        plugin: name.clone(),
    });
    let splits = match admin.client().list_splits(request).await {
        Ok(answer) => answer.into_inner().splits,
        Err(status) if status.code() == Code::NotFound => {
            return Err(unknown(&mut admin, &name).await);
        }
        Err(status) => return Err(admin.failure(&status)),
    };
    match output {
        Output::Json => {
            output::json(&json!({ "splits": splits.iter().map(as_json).collect::<Vec<_>>() }))
        }
        Output::Table | Output::Dot if splits.is_empty() => {
            output::note("no splits: of each plugin the newest version serves");
            Ok(())
        }
        Output::Table | Output::Dot => output::line(for_people(&splits)),
    }
}

/// Shares and groups as they are typed.
fn read(name: &str, shares: &[String], headers: &[String]) -> Result<Split, String> {
    let plugin = name.parse();
    let mut split = Split {
        plugin: plugin.map_err(|error| format!("{error}"))?,
        shares: Default::default(),
        groups: Vec::new(),
    };
    for text in shares {
        let wrong = |why: &str| format!("{text:?} is no share: {why}; write for example 1.4.0=90");
        let (version, weight) = text.split_once('=').ok_or_else(|| wrong("there is no ="))?;
        let version: Version = version
            .parse()
            .map_err(|error| wrong(&format!("{error}")))?;
        let weight: u32 = weight
            .parse()
            .map_err(|_| wrong(&format!("{weight:?} is not a whole number from 0 on")))?;
        if split.shares.insert(version, weight).is_some() {
            return Err(wrong("the version is named a second time"));
        }
    }
    for text in headers {
        let wrong = |why: &str| {
            format!("--header: {text:?}: {why}; write for example x-test-group=beta:2.0.0")
        };
        let (header, rest) = text.split_once('=').ok_or_else(|| wrong("there is no ="))?;
        let (value, version) = rest
            .rsplit_once(':')
            .ok_or_else(|| wrong("there is no :"))?;
        split.groups.push(Group {
            header: header.to_ascii_lowercase(),
            value: value.to_owned(),
            version: version
                .parse()
                .map_err(|error| wrong(&format!("{error}")))?,
        });
    }
    split
        .check()
        .map_err(|(field, why)| format!("{field}: {why}"))?;
    Ok(split)
}

fn as_json(split: &SplitView) -> Value {
    let share = |it: &mesh_proto::admin::SplitShare| json!({ "version": it.version, "weight": it.weight, "active": it.active });
    let group = |it: &mesh_proto::control::TestGroup| json!({ "header": it.header, "value": it.value, "version": it.version });
    json!({
        "plugin": split.plugin,
        "shares": split.shares.iter().map(share).collect::<Vec<_>>(),
        "groups": split.groups.iter().map(group).collect::<Vec<_>>(),
        "by": split.by,
        "reason": split.reason,
        "since_ms": split.since_ms,
    })
}

fn for_people(splits: &[SplitView]) -> String {
    let rows = splits.iter().flat_map(|split| {
        // What gets calls now: the share of what is not active goes to the others.
        let served = |active: u32, weight: u32| if active > 0 { u64::from(weight) } else { 0 };
        let all: u64 = split
            .shares
            .iter()
            .map(|it| served(it.active, it.weight))
            .sum();
        let share = move |it: &mesh_proto::admin::SplitShare| {
            let now = served(it.active, it.weight);
            let percent = (now * 100).checked_div(all);
            [
                split.plugin.clone(),
                it.version.clone(),
                it.weight.to_string(),
                percent.map_or_else(|| "-".to_owned(), |percent| format!("{percent}%")),
                it.active.to_string(),
                split.reason.clone(),
            ]
        };
        split.shares.iter().map(share)
    });
    let head = ["NAME", "VERSION", "WEIGHT", "NOW", "ACTIVE", "REASON"];
    let mut text = output::table(head, rows);
    for split in splits {
        for group in &split.groups {
            let (header, value, version) = (&group.header, &group.value, &group.version);
            let name = &split.plugin;
            text += &format!("\n{name}: requests with {header}: {value} go to {version}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(shares: &[&str], headers: &[&str]) -> Result<Split, String> {
        let owned = |texts: &[&str]| -> Vec<String> {
            texts.iter().map(|text| (*text).to_owned()).collect()
        };
        read("calculator", &owned(shares), &owned(headers))
    }

    #[test]
    fn shares_and_headers_are_read_as_they_are_written() {
        let split = typed(&["1.4.0=90", "2.0.0=10"], &["X-Test-Group=a:b:2.0.0"]).unwrap();
        assert_eq!(
            split.to_string(),
            "1.4.0=90 2.0.0=10 x-test-group=a:b:2.0.0"
        );
    }

    #[test]
    fn each_mistake_is_one_line_that_names_it() {
        for (shares, headers, line) in [
            (
                &["1.4.0"][..],
                &[][..],
                "\"1.4.0\" is no share: there is no =; write for example 1.4.0=90",
            ),
            (
                &["1.4=90"],
                &[],
                "\"1.4=90\" is no share: unexpected end of input while parsing minor version number; \
                 write for example 1.4.0=90",
            ),
            (
                &["1.4.0=-1"],
                &[],
                "\"1.4.0=-1\" is no share: \"-1\" is not a whole number from 0 on; write for example \
                 1.4.0=90",
            ),
            (
                &["1.4.0=1", "1.4.0=2"],
                &[],
                "\"1.4.0=2\" is no share: the version is named a second time; write for example \
                 1.4.0=90",
            ),
            (
                &["1.4.0=0"],
                &[],
                "shares: all weights are 0, so no version would serve: give one of them more",
            ),
            (
                &["1.4.0=1"],
                &["x-test-group=beta"],
                "--header: \"x-test-group=beta\": there is no :; write for example \
                 x-test-group=beta:2.0.0",
            ),
        ] {
            assert_eq!(typed(shares, headers).expect_err(line), line);
        }
    }

    #[test]
    fn the_table_says_what_is_served_now() {
        let share = |version: &str, weight, active| mesh_proto::admin::SplitShare {
            version: version.to_owned(),
            weight,
            active,
        };
        let split = SplitView {
            plugin: "calculator".to_owned(),
            shares: vec![share("1.4.0", 90, 2), share("2.0.0", 10, 0)],
            groups: vec![mesh_proto::control::TestGroup {
                header: "x".to_owned(),
                value: "beta".to_owned(),
                version: "2.0.0".to_owned(),
            }],
            ..SplitView::default()
        };
        assert_eq!(
            for_people(&[split]),
            "NAME        VERSION  WEIGHT  NOW   ACTIVE  REASON\n\
             calculator  1.4.0    90      100%  2\n\
             calculator  2.0.0    10      0%    0\n\
             calculator: requests with x: beta go to 2.0.0"
        );
    }
}
