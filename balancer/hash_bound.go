package balancer

import (
	"fmt"
	"math"

	"github.com/cespare/xxhash/v2"
)

// validHashBound returns an error for a bound that makes no sense.
func validHashBound(bound float64) error {
	if bound != 0 && !(bound > 1 && bound <= 1000) { // NaN too
		return fmt.Errorf("balancer: HashBound is %v: want a number above 1, such as 1.25, or 0 for no bound", bound)
	}
	return nil
}

// placeBounded is place without the backends that have their share times bound in flight
// already, or place if none is left.
func (c *candidates) placeBounded(key string, without skip, bound float64) *Backend {
	inFlight, weights := 1.0, 0.0 // with the one that is placed
	for i, b := range c.backends {
		inFlight += float64(b.InFlight())
		weights += c.weight(i)
	}
	h := xxhash.Sum64String(key)
	var best float64
	var at *Backend
	for i, b := range c.backends {
		weight := c.weight(i)
		s := score(mix(h^c.seeds[i]), weight)
		if at != nil && s <= best || without.has(b) {
			continue
		}
		if room := math.Ceil(bound * inFlight * weight / weights); float64(b.InFlight()) < room {
			best, at = s, b
		}
	}
	if at == nil { // all below the bound are passed over
		return c.place(key, without)
	}
	return at
}

// weight returns the weight of the backend at index i, in proportion to those of the others.
func (c *candidates) weight(i int) float64 {
	if c.weights == nil {
		return 1
	}
	return c.weights[i]
}
