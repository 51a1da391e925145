//! Answers of many small chunks, requests of many small messages, and what a slow reader does to a fast
//! one.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use harness::load::middle;
use harness::mesh::Mesh;
use harness::process;
use router::{CallEvent, CallOutput, CallStream, messages};

use crate::caller::{Caller, request};
use crate::clients;
use crate::memory::Watch;
use crate::parts::Grpc;
use crate::report::{Figure, Target};
use crate::side::{Bench, plugin_pid};

const CHUNKS: u32 = 1_000_000;

/// How often the slow reader takes a chunk.
const SLOW: Duration = Duration::from_millis(10);

pub async fn server_streaming(bench: &mut Bench, mesh: &Mesh) -> anyhow::Result<()> {
    if !bench.wants("stream") {
        return Ok(());
    }
    let caller = Caller::connect(mesh).await?;
    let agent = mesh.agents[0].pid();
    let probe = plugin_pid(mesh, "probe").await?;
    let own = std::process::id();
    if bench.wants("stream.chunks") {
        let grpc = Grpc::start(bench.folder.path()).await;
        let pids = [own, mesh.nats.process.pid(), agent, probe];
        let watch = Watch::start(&[("agent", agent), ("plugin", probe), ("caller", own)]);
        let (mut ours, mut bare) = (Vec::new(), Vec::new());
        for _ in 0..bench.rounds {
            let stream = count(&caller, CHUNKS)?;
            ours.push(timed(&pids, read_all(stream)).await?);
            let pids = [own, grpc.process.pid()];
            bare.push(timed(&pids, read_bare(&grpc.address)).await?);
        }
        let figures = figures(&ours, &bare);
        bench
            .report
            .add("stream.chunks", "1,000,000 numbers", figures);
        watch.report(bench, "stream.chunks.memory");
    }
    if bench.wants("stream.slow_reader") {
        let watch = Watch::start(&[("agent", agent), ("plugin", probe), ("caller", own)]);
        let (mut beside, mut alone) = (Vec::new(), Vec::new());
        for _ in 0..bench.rounds {
            alone.push(pace(&caller, bench.time).await?);
            let slow = tokio::task::spawn_local(read_slowly(count(&caller, u32::MAX)?));
            beside.push(pace(&caller, bench.time).await?);
            if slow.is_finished() {
                slow.await??;
                bail!("the slow stream ended by itself");
            }
            slow.abort();
        }
        let figure = Figure::beside(
            "throughput",
            "chunks/s",
            middle(beside.into_iter()),
            middle(alone.into_iter()),
        );
        bench.report.add(
            "stream.slow_reader",
            "a fast one beside it",
            [figure.target(Target::RatioAtLeast(0.8))],
        );
        watch.report(bench, "stream.slow_reader.memory");
    }
    Ok(())
}

pub async fn client_streaming(bench: &mut Bench, mesh: &Mesh) -> anyhow::Result<()> {
    if !bench.wants("stream.messages") {
        return Ok(());
    }
    let caller = Caller::connect(mesh).await?;
    let agent = mesh.agents[0].pid();
    let probe = plugin_pid(mesh, "probe").await?;
    let own = std::process::id();
    let grpc = Grpc::start(bench.folder.path()).await;
    let pids = [own, mesh.nats.process.pid(), agent, probe];
    let bare_pids = [own, grpc.process.pid()];
    let watch = Watch::start(&[("agent", agent), ("plugin", probe), ("caller", own)]);
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..bench.rounds {
        ours.push(timed(&pids, send_all(&caller)).await?);
        let work = async {
            let taken = clients::grpc_take(&grpc.address, futures::stream::iter(numbers()));
            all_were_taken(&taken.await?)
        };
        bare.push(timed(&bare_pids, work).await?);
    }
    let figures = figures(&ours, &bare);
    bench
        .report
        .add("stream.messages", "1,000,000 numbers", figures);
    watch.report(bench, "stream.messages.memory");
    Ok(())
}

fn numbers() -> impl Iterator<Item = Bytes> + Send {
    (0..CHUNKS).map(|number| Bytes::from(number.to_string()))
}

/// Sends messages as fast as they are taken.
async fn send_all(caller: &Caller) -> anyhow::Result<()> {
    let (sender, source) = messages(64);
    let mut request = request("service:probe.take", "probe", Bytes::new())?;
    request.timeout = Duration::from_secs(120);
    request.messages = Some(source);
    let answer = caller.router.call(request).finish();
    let send = async move {
        for message in numbers() {
            sender.send(message).await;
        }
        sender.finish();
        std::future::pending().await
    };
    let answer: CallOutput = tokio::select! {
        answer = answer => answer?,
        never = send => never,
    };
    all_were_taken(&answer.payload)
}

fn all_were_taken(answer: &[u8]) -> anyhow::Result<()> {
    let text = std::str::from_utf8(answer)?;
    anyhow::ensure!(
        text == CHUNKS.to_string(),
        "{text} messages were taken of {CHUNKS}"
    );
    Ok(())
}

/// How fast small messages went, and what each cost.
fn figures(ours: &[(f64, f64)], bare: &[(f64, f64)]) -> [Figure; 2] {
    let count = f64::from(CHUNKS);
    let rate = |runs: &[(f64, f64)]| middle(runs.iter().map(|run| count / run.0));
    let cpu = |runs: &[(f64, f64)]| middle(runs.iter().map(|run| run.1 * 1e6 / count));
    [
        Figure::beside("throughput", "chunks/s", rate(ours), rate(bare)),
        Figure::beside("CPU per chunk", "µs", cpu(ours), cpu(bare)),
    ]
}

fn count(caller: &Caller, most: u32) -> anyhow::Result<CallStream> {
    let mut request = request("service:probe.count", "probe", most.to_string().into())?;
    request.timeout = Duration::from_secs(120);
    Ok(caller.router.call(request))
}

/// Seconds and processor seconds of some work.
async fn timed(
    pids: &[u32],
    work: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<(f64, f64)> {
    let cpu = || pids.iter().map(|&pid| process::cpu_nanos(pid)).sum::<u64>();
    let (before, begin) = (cpu(), Instant::now());
    work.await?;
    let cpu = (cpu() - before) as f64 / 1e9;
    Ok((begin.elapsed().as_secs_f64(), cpu))
}

async fn read_all(mut stream: CallStream) -> anyhow::Result<()> {
    let mut seen = 0;
    loop {
        match stream.next().await {
            CallEvent::Chunk(_) => seen += 1,
            CallEvent::End(end) => {
                end?;
                break;
            }
            _ => {}
        }
    }
    all_came(seen)
}

async fn read_bare(address: &str) -> anyhow::Result<()> {
    let mut stream = clients::grpc_count(address, CHUNKS).await?;
    let mut seen = 0;
    while stream.message().await?.is_some() {
        seen += 1;
    }
    all_came(seen)
}

fn all_came(seen: u32) -> anyhow::Result<()> {
    anyhow::ensure!(seen == CHUNKS, "{seen} chunks came of {CHUNKS}");
    Ok(())
}

/// Chunks per second of a stream that is read as fast as it comes.
async fn pace(caller: &Caller, time: Duration) -> anyhow::Result<f64> {
    let mut stream = count(caller, u32::MAX)?;
    let begin = Instant::now();
    let mut seen = 0_u32;
    while begin.elapsed() < time {
        let event = tokio::time::timeout(Duration::from_secs(10), stream.next()).await;
        match event.context("no chunk came for ten seconds")? {
            CallEvent::Chunk(_) => seen += 1,
            CallEvent::End(end) => bail!("the stream ended: {end:?}"),
            _ => {}
        }
    }
    Ok(f64::from(seen) / begin.elapsed().as_secs_f64())
}

async fn read_slowly(mut stream: CallStream) -> anyhow::Result<()> {
    loop {
        if let CallEvent::End(end) = stream.next().await {
            end?;
            return Ok(());
        }
        tokio::time::sleep(SLOW).await;
    }
}
