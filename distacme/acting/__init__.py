"""Acting and evaluating: a policy, the actor, the evaluator."""
