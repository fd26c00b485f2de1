package main

import model "github.com/limpet-go/limpet/internal/rebalance"

// rebalance moves sessions as the gateway does in one step: to the backends that have less
// than their share of them, at most this fraction of a share to each. It returns how many.
func rebalance(n []float64, up []bool, fraction float64) (moved float64) {
	var loads []model.Load
	var at []int // which backend each load is of
	for b := range n {
		if up[b] {
			loads, at = append(loads, model.Load{Weight: 1, Clients: n[b], Movable: n[b]}), append(at, b)
		}
	}
	change, _ := model.Plan(loads, fraction)
	for i, c := range change {
		n[at[i]] += c
		moved += max(0, c)
	}
	return moved
}
