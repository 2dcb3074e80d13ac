//! Conditions that configuration values must meet, alone and together.

use super::Config;
use super::sections::{ClusterConfig, GoalsConfig, ObjectiveConfig};
use crate::environment::reward::{RewardStrategy, TeamReward};

/// Adam moves each weight by about this much per update: with more, no network learns.
const LR_MAX: f64 = 0.1;

/// One condition on a value.
pub(super) struct Check {
    pub(super) key: &'static str,
    pub(super) holds: bool,
    pub(super) why: String,
}

fn check(key: &'static str, holds: bool, why: impl Into<String>) -> Check {
    let why = why.into();
    Check { key, holds, why }
}

fn within(key: &'static str, value: f64, low: f64, high: f64) -> Check {
    let why = format!("must lie in {low}..={high}, got {value}");
    check(key, (low..=high).contains(&value), why)
}

fn device(key: &'static str, name: &str) -> Check {
    let number = name.strip_prefix("cuda:");
    let number = number.is_some_and(|n| n.parse::<u16>().is_ok() && !n.starts_with('+'));
    let why = format!("must be cpu, cuda, cuda:N or auto, got \"{name}\"");
    check(key, number || matches!(name, "cpu" | "cuda" | "auto"), why)
}

fn count(key: &'static str, value: usize, high: usize) -> Check {
    within(key, value as f64, 1.0, high as f64)
}

/// All checks, in the order of the file, then those of several keys together.
pub(super) fn checks(c: &Config) -> Vec<Check> {
    let mut all = services(c);
    let devices = c.learner.devices.iter();
    all.extend(devices.map(|name| device("learner.devices", name)));
    all.extend(training(c));
    all.extend(sizes(c));
    all.extend(together(c));
    all.extend(tls(&c.cluster));
    all
}

fn services(c: &Config) -> Vec<Check> {
    let (r, a) = (&c.replay, &c.actor);
    let spacing = c.data.resample_mm().unwrap_or(1.0);
    let fold = (-1..=i64::from(u32::MAX)).contains(&c.data.fold);
    let folds = format!("must be a fold from 0, or -1 for none, got {}", c.data.fold);
    let actors = format!("must be at most 65536, got {}", c.cluster.actors);
    vec![
        check("data.fold", fold, folds),
        within("data.resample_mm", spacing, 0.001, 1000.0),
        device("actor.device", &c.actor.device),
        device("learner.device", &c.learner.device),
        count("replay.shards", r.shards, 256),
        count("replay.capacity", r.capacity, 1 << 31),
        within("replay.alpha", r.alpha, 0.0, 2.0),
        within("replay.epsilon", r.epsilon, 1e-9, 1.0),
        within("replay.priority_max", r.priority_max, 1e-6, 1e6),
        within("replay.beta", r.beta, 0.0, 1.0),
        within("replay.beta_final", r.beta_final, 0.0, 1.0),
        within("replay.samples_per_insert", r.samples_per_insert, 1e-3, 1e4),
        count("actor.count", a.count, 10_000),
        count("actor.slots", a.slots, 4096),
        count("actor.threads", a.threads, 256),
        within("actor.nice", f64::from(a.nice), 0.0, 19.0),
        within("actor.epsilon_start", a.epsilon_start, 0.0, 1.0),
        within("actor.epsilon_decay", a.epsilon_decay, 0.0, 1.0),
        within("actor.epsilon_low", a.epsilon_low, 0.0, a.epsilon_high),
        within("actor.epsilon_high", a.epsilon_high, 0.0, 1.0),
        within("actor.start_near", a.start_near, 0.0, 1.0),
        within("actor.start_margin", a.start_margin, 0.0, 0.45),
        count("actor.batch_rows", a.batch_rows, 4096),
        count("actor.backlog", a.backlog, 100_000),
        within("actor.max_staleness", a.max_staleness, 0.0, 1e6),
        check("cluster.actors", c.cluster.actors <= 65_536, actors),
        within("cluster.lease_s", c.cluster.lease_s, 1.0, 600.0),
        instance(&c.log.instance),
        listen(&c.http.listen),
        hosts(&c.http.hosts),
    ]
}

/// The name becomes part of a file name.
fn instance(name: &str) -> Check {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let why = format!("must consist of letters, digits, -, _ and ., got \"{name}\"");
    let holds = name.chars().all(fits) && !name.starts_with('.');
    check("log.instance", holds, why)
}

fn listen(address: &str) -> Check {
    let holds = address.is_empty() || address.parse::<std::net::SocketAddr>().is_ok();
    let form = "must be IP:PORT, as in 127.0.0.1:7480 or 0.0.0.0:7480, or empty";
    check("http.listen", holds, format!("{form}, got \"{address}\""))
}

/// Names alone: one with a port or a scheme would match no request.
fn hosts(names: &[String]) -> Check {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let is_name = |name: &String| name.chars().all(fits) && name.chars().any(|c| c != '.');
    let odd = names.iter().find(|name| !is_name(name));
    let odd = odd.map_or("", String::as_str);
    let form = "must be host names without port, as in \"metrics.lab\" or \".example.org\"";
    let holds = names.iter().all(is_name);
    check("http.hosts", holds, format!("{form}, got \"{odd}\""))
}

fn training(c: &Config) -> Vec<Check> {
    let l = &c.learner;
    vec![
        within("learner.max_minutes", l.max_minutes, 0.0, 1e7),
        count("learner.batch", l.batch, 65_536),
        within("learner.gamma", l.gamma, 0.0, 0.9999),
        count("learner.n_step", l.n_step, 100),
        within("learner.lr", l.lr, 1e-9, LR_MAX),
        within("learner.adam_beta1", l.adam_beta1, 0.0, 0.9999),
        within("learner.adam_beta2", l.adam_beta2, 0.0, 0.999_999),
        within("learner.adam_epsilon", l.adam_epsilon, 1e-16, 1.0),
        within("learner.max_grad_norm", l.max_grad_norm, 1e-6, 1e9),
        within("learner.ema_decay", l.ema_decay, 0.0, 0.999_999),
        count("learner.prefetch", l.prefetch, 64),
        within("augment.gamma", c.augment.gamma, 0.0, 2.0),
        within("augment.contrast", c.augment.contrast, 0.0, 0.9),
        within("augment.offset", c.augment.offset, 0.0, 0.9),
        within("augment.noise", c.augment.noise, 0.0, 0.9),
        within("pose.share", c.pose.share, 0.0, 1.0),
        within("pose.rotation_degrees", c.pose.rotation_degrees, 0.0, 180.0),
        within("pose.scaling", c.pose.scaling, 0.0, 0.5),
        within("pose.flip", c.pose.flip, 0.0, 1.0),
        count("validation.starts", c.validation.starts, 1000),
        count("evaluation.starts", c.evaluation.starts, 1000),
        within("evaluation.margin", c.evaluation.margin, 0.0, 0.45),
        count("checkpoint.keep", c.checkpoint.keep, 10_000),
    ]
}

/// Sizes of networks and pools of threads, which are made at the start: a value beyond these is a
/// mistake, and would take all memory.
fn sizes(c: &Config) -> Vec<Check> {
    const WIDTH: usize = 16_384;
    const LAYERS: usize = 32;
    const DEVICES: usize = 256;
    let (n, l) = (&c.network, &c.learner);
    let most = |key, list: usize, high: usize| {
        let why = format!("must have at most {high} entries, got {list}");
        check(key, list <= high, why)
    };
    let widths = n
        .hidden
        .iter()
        .map(|&width| count("network.hidden", width, WIDTH));
    let mut all: Vec<Check> = widths.take(LAYERS).collect();
    all.extend([
        most("network.hidden", n.hidden.len(), LAYERS),
        within("network.shared", n.shared as f64, 0.0, WIDTH as f64),
        within("learner.threads", l.threads as f64, 0.0, 256.0),
        most("learner.devices", l.devices.len(), DEVICES),
    ]);
    all
}

/// TLS with only one of its three files protects nothing but looks as if it did.
fn tls(c: &ClusterConfig) -> Vec<Check> {
    let files = [
        ("cluster.ca", &c.ca),
        ("cluster.cert", &c.cert),
        ("cluster.key", &c.key),
    ];
    let given = files.iter().find(|(_, path)| !path.is_empty());
    let why = format!(
        "is empty although {} is set: TLS needs cluster.ca, cluster.cert and cluster.key \
         (`landmarl certs` makes them), or none of them",
        given.map_or("another", |(key, _)| key)
    );
    let holds = |path: &String| given.is_none() || !path.is_empty();
    let of = |(key, path): (&'static str, &String)| check(key, holds(path), why.clone());
    files.into_iter().map(of).collect()
}

fn together(c: &Config) -> Vec<Check> {
    let (r, a, l) = (&c.replay, &c.actor, &c.learner);
    let mut all = Vec::new();
    for (key, value) in [
        ("learner.updates", l.updates),
        ("learner.target_update_period", l.target_update_period),
        ("learner.publish_period", l.publish_period),
        ("checkpoint.period", c.checkpoint.period),
        ("data.max_voxels", c.data.max_voxels),
        ("data.max_expansion", c.data.max_expansion),
        ("replay.min_rows", r.min_rows),
        ("replay.error_buffer", r.error_buffer),
    ] {
        all.push(check(key, value > 0, "must be at least 1"));
    }
    let why = format!(
        "{} rows can never be reached with a capacity of {}",
        r.min_rows, r.capacity
    );
    all.push(check(
        "replay.min_rows",
        r.min_rows <= r.capacity as u64,
        why,
    ));
    let mut steps = l.lr_steps.iter();
    let valid = steps
        .all(|(at, factor)| (0.0..=1.0).contains(at) && *factor > 0.0 && factor * l.lr <= LR_MAX);
    let why = format!(
        "needs [share of the updates in 0..=1, factor above 0] pairs, and learner.lr times the \
         factor at most {LR_MAX}"
    );
    all.push(check("learner.lr_steps", valid, why));
    let own = c.rules.strategy == RewardStrategy::Own && c.rules.team == TeamReward::None;
    let known = l.gamma == 0.0 && own && c.row_agents() == 1;
    let steps = l.objective == ObjectiveConfig::StepReward;
    for (key, value, more) in [
        ("learner.goals", "all", l.goals == GoalsConfig::All),
        ("learner.objective", "step_reward", steps),
    ] {
        let why = format!(
            "\"{value}\" needs learner.gamma = 0, network.kind = \"collab\", \
             rules.strategy = \"own\" and rules.team = \"none\": only then do the rules \
             give the rewards of other agents and actions"
        );
        all.push(check(key, !more || known, why));
    }
    let (scales, radii) = (c.rules.scales.len(), a.start_near_radius.len());
    all.push(check(
        "actor.start_near_radius",
        a.start_near == 0.0 || radii == scales,
        format!("needs one radius per scale: {scales} scales, {radii} radii"),
    ));
    all
}
