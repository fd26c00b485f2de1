package nats

import (
	"sync"
	"time"

	"github.com/limpet-go/limpet/bus"
)

// published counts calls of Publish.
type published struct {
	mu         sync.Mutex
	ok, failed int64
	times      bus.Durations
}

// note counts a call that began then and has returned err now.
func (p *published) note(began time.Time, err error) {
	took := time.Since(began)
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		p.failed++
	} else {
		p.ok++
	}
	p.times.Add(took)
}

// into puts the counts into s.
func (p *published) into(s *bus.Stats) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s.Published, s.PublishErrors, s.PublishTimes = p.ok, p.failed, p.times
}
