//! What a run or a session may spend, and whether it is spent. Pure: adds, compares and names the limit; who stops and who is asked is
//! decided by the run.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::message::Usage;

/// What may be spent. Whatever is `None` has no limit.
///
/// A limit is looked at before something is spent, and a model's cost is known only afterwards: tokens and money may be exceeded by what
/// one model call costs.
///
/// ```
/// use std::time::Duration;
/// use mainspring_agents::{AtLimit, Budget};
///
/// let budget = Budget {
///     model_calls: Some(20),
///     money_micros: Some(500_000),
///     elapsed: Some(Duration::from_secs(3600)),
///     at_limit: AtLimit::Finish,
///     ..Budget::unlimited()
/// };
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budget {
    /// Model calls, those for summaries included, repeated attempts not.
    pub model_calls: Option<u32>,
    /// Tool calls that were run.
    pub tool_calls: Option<u32>,
    /// Tokens read and written.
    pub tokens: Option<u64>,
    /// Money by the agent's [`Price`], in millionths of its currency.
    pub money_micros: Option<u64>,
    /// Time since the run began, waiting for people included. A session has none.
    pub elapsed: Option<Duration>,
    /// What happens then.
    pub at_limit: AtLimit,
}

/// What happens at a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AtLimit {
    /// The run fails, with error type `BudgetSpent`.
    #[default]
    Fail,
    /// A person is asked, as for an approval: approved, as much again may be spent; rejected, the run fails.
    AskPerson,
    /// The run ends well, with what the model said last.
    Finish,
}

/// Which limit was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// Of model calls.
    ModelCalls,
    /// Of tool calls.
    ToolCalls,
    /// Of tokens.
    Tokens,
    /// Of money.
    Money,
    /// Of time.
    Elapsed,
}

impl fmt::Display for Limit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::ModelCalls => "model calls",
            Self::ToolCalls => "tool calls",
            Self::Tokens => "tokens",
            Self::Money => "money",
            Self::Elapsed => "elapsed time",
        })
    }
}

/// What was spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Spent {
    /// Model calls that were answered.
    pub model_calls: u32,
    /// Tool calls that were run.
    pub tool_calls: u32,
    /// Tokens.
    pub usage: Usage,
    /// Money in millionths of the price's currency.
    pub money_micros: u64,
}

impl Spent {
    /// Counts an answered model call.
    pub(crate) fn model_call(&mut self, usage: Usage, price: Price) {
        self.model_calls = self.model_calls.saturating_add(1);
        self.usage += usage;
        self.money_micros = self.money_micros.saturating_add(price.of(usage));
    }

    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            model_calls: self.model_calls.saturating_add(other.model_calls),
            tool_calls: self.tool_calls.saturating_add(other.tool_calls),
            usage: self.usage + other.usage,
            money_micros: self.money_micros.saturating_add(other.money_micros),
        }
    }
}

/// What a model's tokens cost, in millionths of a currency per million tokens: 3 dollars per million are `3_000_000`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Price {
    /// For a million tokens read.
    pub input_micros: u64,
    /// For a million tokens written.
    pub output_micros: u64,
}

impl Price {
    /// The price of this, rounded up, in millionths.
    pub fn of(self, usage: Usage) -> u64 {
        let part = |tokens: u64, price: u64| u128::from(tokens) * u128::from(price);
        let whole = part(usage.input_tokens, self.input_micros)
            + part(usage.output_tokens, self.output_micros);
        u64::try_from(whole.div_ceil(1_000_000)).unwrap_or(u64::MAX)
    }
}

/// What is about to be spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    ModelCall,
    ToolCalls(u32),
}

impl Default for Budget {
    /// Fifty model calls, and no other limit.
    fn default() -> Self {
        Self {
            model_calls: Some(50),
            ..Self::unlimited()
        }
    }
}

impl Budget {
    /// Without any limit.
    pub fn unlimited() -> Self {
        Self {
            model_calls: None,
            tool_calls: None,
            tokens: None,
            money_micros: None,
            elapsed: None,
            at_limit: AtLimit::Fail,
        }
    }

    /// The limit that forbids what is next; `None`: it may be done. `allowances`: how often as much again was allowed.
    pub(crate) fn forbids(
        &self,
        next: Next,
        spent: &Spent,
        allowances: impl Fn(Limit) -> usize,
    ) -> Option<Limit> {
        let exceeds = |limit: Limit, amount: Option<u64>, wanted: u64| {
            let times = allowances(limit) as u64 + 1;
            amount.is_some_and(|amount| wanted > amount.saturating_mul(times))
        };
        let limits = match next {
            Next::ModelCall => {
                let calls = u64::from(spent.model_calls) + 1;
                // Of tokens and money something has to be left: what the call will cost is not known.
                let tokens = spent.usage.tokens().saturating_add(1);
                let money = spent.money_micros.saturating_add(1);
                vec![
                    (Limit::ModelCalls, self.model_calls.map(u64::from), calls),
                    (Limit::Tokens, self.tokens, tokens),
                    (Limit::Money, self.money_micros, money),
                ]
            }
            Next::ToolCalls(wanted) => {
                let calls = u64::from(spent.tool_calls) + u64::from(wanted);
                vec![(Limit::ToolCalls, self.tool_calls.map(u64::from), calls)]
            }
        };
        let mut limits = limits.into_iter();
        limits
            .find(|(limit, amount, wanted)| exceeds(*limit, *amount, *wanted))
            .map(|(limit, _, _)| limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spent(model_calls: u32, tool_calls: u32, tokens: u64, money_micros: u64) -> Spent {
        Spent {
            model_calls,
            tool_calls,
            usage: Usage {
                input_tokens: tokens,
                output_tokens: 0,
            },
            money_micros,
        }
    }

    #[test]
    fn the_last_call_within_a_limit_is_allowed_and_the_one_after_it_is_not() {
        let budget = Budget {
            model_calls: Some(3),
            tool_calls: Some(4),
            ..Budget::unlimited()
        };
        let forbids = |next, spent| budget.forbids(next, &spent, |_| 0);
        assert_eq!(forbids(Next::ModelCall, spent(2, 0, 0, 0)), None);
        let limit = forbids(Next::ModelCall, spent(3, 0, 0, 0));
        assert_eq!(limit, Some(Limit::ModelCalls));
        assert_eq!(forbids(Next::ToolCalls(2), spent(0, 2, 0, 0)), None);
        let limit = forbids(Next::ToolCalls(3), spent(0, 2, 0, 0));
        assert_eq!(limit, Some(Limit::ToolCalls));
    }

    #[test]
    fn tokens_and_money_forbid_the_next_call_once_nothing_is_left() {
        let budget = Budget {
            tokens: Some(100),
            money_micros: Some(50),
            ..Budget::unlimited()
        };
        let forbids = |spent| budget.forbids(Next::ModelCall, &spent, |_| 0);
        assert_eq!(forbids(spent(9, 9, 99, 49)), None);
        assert_eq!(forbids(spent(9, 9, 100, 49)), Some(Limit::Tokens));
        assert_eq!(forbids(spent(9, 9, 99, 50)), Some(Limit::Money));
    }

    #[test]
    fn an_allowance_gives_as_much_again() {
        let budget = Budget {
            model_calls: Some(3),
            ..Budget::unlimited()
        };
        let forbids = |calls| budget.forbids(Next::ModelCall, &spent(calls, 0, 0, 0), |_| 1);
        assert_eq!(forbids(5), None);
        assert_eq!(forbids(6), Some(Limit::ModelCalls));
    }

    #[test]
    fn a_price_is_rounded_up_and_never_overflows() {
        let price = Price {
            input_micros: 3_000_000,
            output_micros: 15_000_000,
        };
        let usage = |input_tokens, output_tokens| Usage {
            input_tokens,
            output_tokens,
        };
        assert_eq!(price.of(usage(1000, 100)), 4500);
        let cheap = Price {
            input_micros: 1,
            output_micros: 0,
        };
        assert_eq!(cheap.of(usage(1, 0)), 1);
        assert_eq!(price.of(usage(u64::MAX, u64::MAX)), u64::MAX);
    }
}
