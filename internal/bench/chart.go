//go:build linux

package main

import (
	"bytes"
	"fmt"
)

// A bar of the chart.
type bar struct {
	peer  string
	value float64
	label string
}

// chart draws an SVG: a group of bars for each case, processor time beside nginx's
// or, without it, beside the largest; and the memory of idle tunnels.
func (r *report) chart() []byte {
	const (
		left, width = 130, 480 // of the bars
		thick, gap  = 12, 14
		most        = 6.0 // times the baseline: longer bars are cut
	)
	var body bytes.Buffer
	y := 50
	group := func(title string, bars []bar) {
		var base float64
		for _, b := range bars {
			if b.peer == baseline {
				base = b.value
			}
		}
		if base == 0 {
			for _, b := range bars {
				base = max(base, b.value/most)
			}
		}
		if base <= 0 {
			return
		}
		fmt.Fprintf(&body, `<text x="%d" y="%d" text-anchor="end" font-weight="bold">%s</text>`+"\n", left-8, y+10, title)
		for _, b := range bars {
			times := max(b.value/base, 0)
			fmt.Fprintf(&body, `<rect x="%d" y="%d" width="%.1f" height="%d" fill="%s"/>`+"\n", left, y, max(1, width*min(times, most)/most), thick-2, colour(b.peer))
			cut := ""
			if times > most {
				cut = "→ "
			}
			fmt.Fprintf(&body, `<text x="%.1f" y="%d" fill="#666">%s%s</text>`+"\n", left+width*min(times, most)/most+5, y+9, cut, b.label)
			y += thick
		}
		y += gap
	}
	for _, c := range r.cases {
		var bars []bar
		for _, p := range r.Peers {
			m := r.of(c, p.Name)
			switch {
			case m == nil:
			case c.name == "idle":
				bars = append(bars, bar{p.Name, m.Used, fmt.Sprintf("%.1f KiB", m.Used/1024)})
			default:
				bars = append(bars, bar{p.Name, m.CPU, fmt.Sprintf("%.1f µs", m.CPU)})
			}
		}
		title := c.name
		if title == "idle" {
			title = "idle tunnel"
		}
		group(title, bars)
	}
	var out bytes.Buffer
	fmt.Fprintf(&out, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 720 %d" width="720" height="%d" font-family="sans-serif" font-size="11">`+"\n", y, y)
	fmt.Fprintf(&out, `<rect width="720" height="%d" fill="white"/>`+"\n", y)
	fmt.Fprintf(&out, `<text x="10" y="18" font-size="13">What a gateway costs: processor time of an operation, memory of an idle WebSocket; shorter is better</text>`+"\n")
	x := left
	for _, p := range r.Peers {
		if !p.Missing {
			fmt.Fprintf(&out, `<rect x="%d" y="28" width="10" height="10" fill="%s"/><text x="%d" y="37">%s</text>`+"\n", x, colour(p.Name), x+14, p.Name)
			x += 95
		}
	}
	out.Write(body.Bytes())
	out.WriteString("</svg>\n")
	return out.Bytes()
}

func colour(peer string) string {
	switch peer {
	case "Limpet":
		return "#0b7285"
	case "nginx":
		return "#868e96"
	case "HAProxy":
		return "#adb5bd"
	case "Caddy":
		return "#d9a441"
	}
	return "#b3563b"
}
