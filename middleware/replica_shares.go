package middleware

import (
	"cmp"
	"context"
	"maps"
	"time"
)

// sharesDecision is an operator's decision about the shares of groups: see
// [balancer.Pool.SetShares]. At and By are those of a decision about a backend.
type sharesDecision struct {
	Shares map[string]int `json:"shares,omitempty"` // none: groups don't matter
	At     int64          `json:"at"`
	By     string         `json:"by"`
}

// after reports whether d, which may be nil, is later than other, which may be nil too.
func (d *sharesDecision) after(other *sharesDecision) bool {
	if d == nil || other == nil {
		return d != nil
	}
	return cmp.Or(cmp.Compare(d.At, other.At), cmp.Compare(d.By, other.By)) > 0
}

// sound reports whether d can be remembered, apart from what the pool says of its shares.
func (d *sharesDecision) sound() bool { return d != nil && d.At > 0 && isName(d.By) }

// sharesChanged is called after each SetShares, also that of receiveShares.
func (r *replicas) sharesChanged() {
	r.sharesSet.Store(true)
	r.poolChanged()
}

// collectShares compares the pool's shares with those that are known. A difference is a
// decision that was made on this replica, unless nobody has set shares since the gateway was
// made.
func (r *replicas) collectShares() {
	if !r.sharesSet.Load() {
		return
	}
	now := r.pool.Shares()
	if r.shares != nil && maps.Equal(now, r.shares.Shares) {
		return
	}
	r.clock = max(r.clock+1, time.Now().UnixMicro())
	r.shares = &sharesDecision{now, r.clock, r.id}
	r.announceWithin(gather)
}

// receiveShares handles what another replica's announcement says of shares, if it says
// something. It returns whether the sender knows all that this replica knows.
func (r *replicas) receiveShares(d *sharesDecision) (covered bool) {
	if d.after(r.shares) {
		if ahead := time.Until(time.UnixMicro(d.At)); ahead > apartMax {
			r.gateway.router.warn(context.Background(), "another replica's decision about shares is refused: its clock is wrong, or this one's", "by", d.By, "ahead", ahead)
			return true
		}
		// It is known before the pool has it, so that it isn't taken for a decision
		// of this replica.
		before := r.shares
		r.shares = d
		if err := r.pool.SetShares(d.Shares); err != nil {
			r.shares = before
			r.gateway.router.warn(context.Background(), "another replica's decision about shares makes no sense here", "by", d.By, "err", err)
			return true
		}
		r.clock = max(r.clock, d.At)
		r.log.Info("another replica's decision", "shares", d.Shares, "by", d.By)
	}
	return !r.shares.after(d)
}
