//! Messages between agents before each layer of their heads.

use tch::Tensor;

use crate::error::Result;

/// Appends the team's message to each agent's features: `[A, N, F]` → `[A, N, 2F]`,
/// own features first.
///
/// Without `scores` the message is the mean over all agents, including the
/// receiver (CommNet, Sukhbaatar et al. 2016, as in rl-medical). With `scores`
/// `[receiver, sender]` it is the sum weighted by their softmax over senders; the
/// weights are learned and do not depend on the input.
pub(crate) fn append_message(own: &Tensor, scores: Option<&Tensor>) -> Result<Tensor> {
    let size = own.size();
    let message = match scores {
        None => own
            .f_mean_dim([0_i64].as_slice(), true, own.kind())?
            .f_expand(&size, false)?,
        Some(scores) => {
            let weights = scores.f_softmax(-1, own.kind())?;
            weights
                .f_matmul(&own.f_reshape([size[0], -1])?)?
                .f_reshape(&size)?
        }
    };
    Ok(Tensor::f_cat(&[own, &message], -1)?)
}
