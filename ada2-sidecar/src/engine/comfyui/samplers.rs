//! ComfyUI's sampler and scheduler for each name that clients send: InvokeAI's, so that they work with every engine.

/// The name, `sampler_name`, `scheduler`. Where ComfyUI has no equivalent, the nearest: `pndm` runs as its improved form,
/// `dpmpp_2s` as the ancestral one, `dpmpp_3m` as the stochastic one, `tcd` as `lcm`.
const PAIRS: [(&str, &str, &str); 32] = [
    ("ddim", "ddim", "ddim_uniform"),
    ("ddpm", "ddpm", "normal"),
    ("deis", "deis", "normal"),
    ("deis_k", "deis", "karras"),
    ("lms", "lms", "normal"),
    ("lms_k", "lms", "karras"),
    ("pndm", "ipndm", "normal"),
    ("heun", "heun", "normal"),
    ("heun_k", "heun", "karras"),
    ("euler", "euler", "normal"),
    ("euler_k", "euler", "karras"),
    ("euler_a", "euler_ancestral", "normal"),
    ("kdpm_2", "dpm_2", "normal"),
    ("kdpm_2_k", "dpm_2", "karras"),
    ("kdpm_2_a", "dpm_2_ancestral", "normal"),
    ("kdpm_2_a_k", "dpm_2_ancestral", "karras"),
    ("dpmpp_2s", "dpmpp_2s_ancestral", "normal"),
    ("dpmpp_2s_k", "dpmpp_2s_ancestral", "karras"),
    ("dpmpp_2m", "dpmpp_2m", "normal"),
    ("dpmpp_2m_k", "dpmpp_2m", "karras"),
    ("dpmpp_2m_sde", "dpmpp_2m_sde", "normal"),
    ("dpmpp_2m_sde_k", "dpmpp_2m_sde", "karras"),
    ("dpmpp_3m", "dpmpp_3m_sde", "normal"),
    ("dpmpp_3m_k", "dpmpp_3m_sde", "karras"),
    ("dpmpp_sde", "dpmpp_sde", "normal"),
    ("dpmpp_sde_k", "dpmpp_sde", "karras"),
    ("er_sde", "er_sde", "normal"),
    ("unipc", "uni_pc", "normal"),
    ("unipc_k", "uni_pc", "karras"),
    ("lcm", "lcm", "sgm_uniform"),
    ("tcd", "lcm", "sgm_uniform"),
    // Only ComfyUI has it: Z-Image's own.
    ("res_multistep", "res_multistep", "simple"),
];

/// The values of the parameter `scheduler`.
pub(super) const NAMES: [&str; PAIRS.len()] = {
    let mut names = [""; PAIRS.len()];
    let mut at = 0;
    while at < names.len() {
        names[at] = PAIRS[at].0;
        at += 1;
    }
    names
};

/// Sampler and scheduler for a name.
pub(super) fn pair(requested: &str) -> (&'static str, &'static str) {
    let pair = PAIRS.iter().find(|(name, _, _)| *name == requested);
    // Requests and presets are checked against NAMES.
    pair.map_or(("euler", "normal"), |(_, sampler, scheduler)| (sampler, scheduler))
}

/// The name of what a graph has: its sampler, and perhaps its scheduler. Without a name it is both of ComfyUI's.
pub(super) fn name(parts: &[(&str, &str)]) -> String {
    let scheduler = parts.iter().find(|(input, _)| *input == "scheduler").map(|(_, name)| *name);
    let sampler = parts.iter().find(|(input, _)| *input != "scheduler").map_or("", |(_, name)| *name);
    let is_same =
        |(_, of, with): &&(&str, &str, &str)| *of == sampler && scheduler.is_none_or(|name| name == *with);
    match (PAIRS.iter().find(is_same), scheduler) {
        (Some((name, ..)), _) => (*name).to_owned(),
        (None, Some(scheduler)) => format!("{sampler}/{scheduler}"),
        (None, None) => sampler.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::EngineKind;

    /// `KSampler` of 0.33.0, 0.12.1 and 0.3.64.
    const SAMPLERS: &str = "euler euler_ancestral heun dpm_2 dpm_2_ancestral lms dpmpp_2s_ancestral dpmpp_sde dpmpp_2m \
        dpmpp_2m_sde dpmpp_3m_sde ddpm lcm ipndm deis er_sde ddim uni_pc res_multistep";
    const OF_COMFYUI: &str = "simple sgm_uniform karras exponential ddim_uniform beta normal";

    #[test]
    fn every_sampler_name_has_a_pair_that_comfyui_accepts() {
        let of_invokeai = EngineKind::InvokeAi.schedulers();
        assert_eq!(NAMES[..of_invokeai.len()], *of_invokeai, "clients use InvokeAI's names");
        for (name, sampler, scheduler) in &PAIRS {
            assert!(SAMPLERS.split_whitespace().any(|one| one == *sampler), "{name}: {sampler}");
            assert!(OF_COMFYUI.split_whitespace().any(|one| one == *scheduler), "{name}: {scheduler}");
        }
        assert_eq!(pair("dpmpp_2m_k"), ("dpmpp_2m", "karras"));
    }

    #[test]
    fn what_a_graph_has_is_named_as_clients_name_it() {
        for (name, sampler, scheduler) in PAIRS.iter().filter(|(name, ..)| *name != "tcd") {
            assert_eq!(super::name(&[("sampler_name", sampler), ("scheduler", scheduler)]), *name);
        }
        assert_eq!(super::name(&[("scheduler", "simple"), ("sampler_name", "euler")]), "euler/simple");
        assert_eq!(super::name(&[("sampler_name", "euler")]), "euler");
        assert_eq!(super::name(&[("sampler_name", "gradient_estimation")]), "gradient_estimation");
    }
}
