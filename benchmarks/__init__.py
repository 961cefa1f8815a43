"""Side by side with peers: each module measures one thing; ``python -m benchmarks`` runs them all."""
