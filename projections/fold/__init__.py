"""Events to points: pure, commutative, exact."""
