package upgrade

// Drains returns how many groups p keeps what DrainGroup spreads for.
func Drains(p *Proxy) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.drains)
}
