"""Agreement among known authorities: Tendermint as a pure function of its inputs."""
