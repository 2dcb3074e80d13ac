//! The loss: Huber on (double) Q-learning with importance weights.
//!
//! With y = r + d · Q⁻(s', argmax_a Q(s', a)) (double: van Hasselt et al. 2016;
//! else max_a Q⁻(s', a)), td = y − Q(s, a) and Huber of δ = 1:
//! loss = Σ w · active · huber(td) / Σ active. d is the row's discount, γ^k or
//! 0, so there is no terminal flag here.

use model::error::Result;
use tch::{Reduction, Tensor};

/// Where the Huber loss changes from quadratic to linear.
const DELTA: f64 = 1.0;

#[derive(Debug)]
pub struct Loss {
    /// Scalar, attached to the graph.
    pub loss: Tensor,
    /// |td| `[N]`, zero for inactive entries, detached.
    pub td: Tensor,
}

/// Targets `[N]` from the bootstrap state's Q-values `[N, actions]`.
///
/// `next_online` chooses the action in double Q-learning; without it the
/// target network does. `reward`, `discount`: `[N]`.
///
/// # Errors
/// libtorch's, for mismatched shapes.
pub fn targets(
    reward: &Tensor,
    discount: &Tensor,
    next_target: &Tensor,
    next_online: Option<&Tensor>,
) -> Result<Tensor> {
    let chooser = next_online.unwrap_or(next_target);
    let best = chooser.f_argmax(-1, true)?;
    let bootstrap = next_target.f_gather(-1, &best, false)?.f_squeeze_dim(-1)?;
    Ok(bootstrap.f_mul(discount)?.f_add(reward)?)
}

/// The loss of Q-values `[N, actions]` with the `action` i64 `[N]` taken,
/// `target`, `active` (zero or one) and importance `weight` `[N]` f32.
///
/// # Errors
/// libtorch's, for mismatched shapes.
pub fn huber(
    q: &Tensor,
    action: &Tensor,
    target: &Tensor,
    active: &Tensor,
    weight: &Tensor,
) -> Result<Loss> {
    let chosen = q
        .f_gather(-1, &action.f_unsqueeze(-1)?, false)?
        .f_squeeze_dim(-1)?;
    let each = chosen.f_huber_loss(target, Reduction::None, DELTA)?;
    let count = active.f_sum(active.kind())?.f_clamp_min(1.0)?;
    let loss = each
        .f_mul(&weight.f_mul(active)?)?
        .f_sum(q.kind())?
        .f_div(&count)?;
    let td = target.f_sub(&chosen.detach())?.f_abs()?.f_mul(active)?;
    Ok(Loss { loss, td })
}

/// The loss of Q-values of several agents with known rewards: Σ w · huber.
/// `reward` and `weight` have the shape of `q`.
///
/// # Errors
/// libtorch's, for mismatched shapes.
pub fn known(q: &Tensor, reward: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let each = q.f_huber_loss(reward, Reduction::None, DELTA)?;
    Ok(each.f_mul(weight)?.f_sum(q.kind())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(values: &[f32]) -> Tensor {
        Tensor::from_slice(values)
    }

    fn near(tensor: &Tensor, expected: &[f32]) {
        let found = Vec::<f32>::try_from(tensor.flatten(0, -1)).unwrap();
        assert_eq!(found.len(), expected.len());
        for (f, e) in found.iter().zip(expected) {
            assert!((f - e).abs() < 1e-6, "{found:?} for {expected:?}");
        }
    }

    #[test]
    fn in_double_q_learning_the_online_network_chooses_the_action() {
        let reward = row(&[1.0, -0.5, 0.25]);
        let discount = row(&[0.9, 0.81, 0.0]);
        let target = Tensor::from_slice2(&[[1.0_f32, 5.0], [2.0, -4.0], [7.0, 8.0]]);
        let online = Tensor::from_slice2(&[[3.0_f32, 2.0], [0.0, 1.0], [0.0, 1.0]]);
        // Online picks 0, 1, 1: 1 + 0.9·1, −0.5 + 0.81·(−4), 0.25 + 0·8.
        near(
            &targets(&reward, &discount, &target, Some(&online)).unwrap(),
            &[1.9, -3.74, 0.25],
        );
        // The target's own best: 1 + 0.9·5, −0.5 + 0.81·2, 0.25.
        near(
            &targets(&reward, &discount, &target, None).unwrap(),
            &[5.5, 1.12, 0.25],
        );
    }

    #[test]
    fn huber_by_hand() {
        let q = Tensor::from_slice2(&[[0.5_f32, 9.0], [9.0, 2.0], [-1.0, 9.0], [9.0, 0.0]])
            .set_requires_grad(true);
        let action = Tensor::from_slice(&[0_i64, 1, 0, 1]);
        let target = row(&[1.0, 0.2, -1.25, 9.0]);
        let (active, weight) = (row(&[1.0, 1.0, 1.0, 0.0]), row(&[1.0, 0.5, 0.25, 1.0]));
        let out = huber(&q, &action, &target, &active, &weight).unwrap();
        // td 0.5, −1.8, −0.25 and an inactive one:
        // (1·0.5²/2 + 0.5·(1.8 − 0.5) + 0.25·0.25²/2) / 3 = 0.7828125 / 3
        near(&out.loss, &[0.260_937_5]);
        near(&out.td, &[0.5, 1.8, 0.25, 0.0]);
        out.loss.backward();
        // −w·clip(td, ±1)/3 at the action taken; PyTorch 2.11 gives
        // [-0.1666667, 0.1666667, 0.0208333, 0]
        let expected = [-0.5 / 3.0, 0.0, 0.0, 0.5 / 3.0, 0.0625 / 3.0, 0.0, 0.0, 0.0];
        near(&q.grad(), &expected);
    }

    #[test]
    fn known_rewards_by_hand() {
        let q = Tensor::from_slice(&[0.5_f32, -1.0, 2.0, 9.0]).view([1, 2, 2]);
        let reward = Tensor::from_slice(&[1.0_f32, -1.0, 0.0, 0.0]).view([1, 2, 2]);
        let weight = Tensor::from_slice(&[0.5_f32, 1.0, 0.25, 0.0]).view([1, 2, 2]);
        // 0.5 · 0.5²/2 + 0 + 0.25 · (2 − 0.5)
        near(&known(&q, &reward, &weight).unwrap(), &[0.4375]);
    }

    #[test]
    fn the_loss_of_a_batch_without_active_agents_is_zero() {
        let q = Tensor::from_slice2(&[[0.5_f32, 9.0]]).set_requires_grad(true);
        let (action, target) = (Tensor::from_slice(&[1_i64]), row(&[3.0]));
        let out = huber(&q, &action, &target, &row(&[0.0]), &row(&[1.0])).unwrap();
        near(&out.loss, &[0.0]);
        out.loss.backward();
        near(&q.grad(), &[0.0, 0.0]);
    }
}
