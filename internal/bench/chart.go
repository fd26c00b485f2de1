//go:build linux

package main

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"strconv"
)

// The chart's measures, in pixels. Names and values are as wide as the widest
// usual font needs; nobody knows which one draws them.
const (
	chartWidth = 900
	margin     = 24
	columns    = 3
	cellWidth  = 266
	cellGap    = (chartWidth - 2*margin - columns*cellWidth) / (columns - 1)
	thick      = 17 // a bar and the space below it
	nameWidth  = 88
	barWidth   = 112 // of the longest one; the rest is its value's
	plotHeight = 84
)

// style makes the chart fit for both of GitHub's themes. It has a background of
// its own, as the viewer's browser may prefer another one than the page.
const style = `<style>
text { font: 12px system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; fill: #1f2328 }
.title { font-size: 18px; font-weight: 600 }
.name { font-size: 13px; font-weight: 600 }
.note { font-size: 11px; fill: #59636e }
.card { fill: #ffffff; stroke: #d1d9e0 }
.bar { fill: #c5ccd3 }
.base { fill: #8c959f }
.ours { fill: #0b7285 }
.our { fill: #0b7285; font-weight: 600 }
.axis { stroke: #d1d9e0 }
.line { fill: none; stroke: #0b7285; stroke-width: 2 }
.baseline { fill: none; stroke: #8c959f; stroke-width: 2; stroke-dasharray: 4 4 }
@media (prefers-color-scheme: dark) {
text { fill: #f0f6fc }
.note { fill: #9198a1 }
.card { fill: #0d1117; stroke: #3d444d }
.bar { fill: #3d444d }
.base { fill: #656c76 }
.ours { fill: #22b8cf }
.our { fill: #3bc9db }
.axis { stroke: #3d444d }
.line { stroke: #22b8cf }
.baseline { stroke: #656c76 }
}
</style>
`

// A chart is an SVG that grows downwards, cell by cell.
type chart struct {
	body bytes.Buffer
	y    int // of the row's top
	cell int // of the row
	row  int // its height
}

// chart draws what the report has: bars for each case, and lines for how Limpet
// scales.
func (r *report) chart() []byte {
	c := &chart{y: 36}
	c.heading("What a gateway costs", "Processor time per operation, user and system, of one worker on one core; memory per idle WebSocket. Shorter is better.")
	for _, s := range r.cases {
		if s.name == "idle" {
			c.bars("idle tunnel", "memory of each, just opened", r.figures(s, func(m *result) (float64, string) {
				return m.Opened, short(m.Opened/1024) + " KiB"
			}))
			c.bars("idle tunnel, used once", "memory of each, after one message", r.figures(s, func(m *result) (float64, string) {
				return m.Used, short(m.Used/1024) + " KiB"
			}))
			continue
		}
		c.bars(s.name, s.does, r.figures(s, func(m *result) (float64, string) { return m.CPU, short(m.CPU) + " µs" }))
	}
	c.wrap()
	if s := r.Scaling; s != nil {
		c.y += 18
		c.heading("Limpet as it grows", "Processor time again, and the time to pick a new home for a client. Flat is good.")
		var requests, messages, nginx, picks []point
		for i, b := range s.Backends {
			n := float64(b.Backends)
			requests = append(requests, point{n, s.Requests[i].CPU})
			picks = append(picks, point{n, b.Pick / n})
		}
		for _, m := range s.Messages {
			n, _ := strconv.ParseFloat(m.Case, 64)
			messages = append(messages, point{n, m.CPU})
		}
		for i, m := range s.Baseline {
			nginx = append(nginx, point{messages[i].n, m.CPU})
		}
		c.line("pinned request", "µs, with so many backends", requests, nil)
		c.line("message there and back", "µs, with so many tunnels; dashed: nginx", messages, nginx)
		c.line("rendezvous hashing", "ns for each of so many backends", picks, nil)
		c.wrap()
	}
	var out bytes.Buffer
	fmt.Fprintf(&out, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%[1]d" height="%d" role="img">`+"\n", chartWidth, c.y, c.y)
	fmt.Fprintf(&out, "<title>What Limpet costs beside other gateways</title>\n%s", style)
	fmt.Fprintf(&out, `<rect class="card" x="0.5" y="0.5" width="%d" height="%d" rx="8"/>`+"\n", chartWidth-1, c.y-1)
	out.Write(c.body.Bytes())
	out.WriteString("</svg>\n")
	return out.Bytes()
}

// A bar is one gateway's; without a value it is that of a failure.
type bar struct {
	peer  string
	value float64
	label string
}

// figures returns a bar for each gateway that a case was measured at.
func (r *report) figures(s *scene, figure func(*result) (value float64, label string)) []bar {
	var bars []bar
	for _, p := range r.Peers {
		switch m := r.of(s, p.Name); {
		case m == nil:
		case m.Errors > 0:
			bars = append(bars, bar{p.Name, 0, "errors"})
		default:
			value, label := figure(m)
			bars = append(bars, bar{p.Name, max(value, 0), label})
		}
	}
	return bars
}

func (c *chart) heading(title, note string) {
	c.text(margin, c.y, "title", "start", title)
	c.text(margin, c.y+20, "note", "start", note)
	c.y += 52
}

// begin begins a cell of this height and returns where.
func (c *chart) begin(height int, name, note string) (x, y int) {
	if c.cell == columns {
		c.wrap()
	}
	x, y = margin+c.cell*(cellWidth+cellGap), c.y
	c.text(x, y, "name", "start", name)
	c.text(x, y+16, "note", "start", note)
	c.cell++
	c.row = max(c.row, height)
	return x, y + 24
}

// wrap ends a row of cells.
func (c *chart) wrap() {
	c.y += c.row
	c.cell, c.row = 0, 0
}

// bars draws a cell of bars, the longest of them as long as can be.
func (c *chart) bars(name, note string, bars []bar) {
	x, y := c.begin(24+thick*len(bars)+26, name, note)
	var most float64
	for _, b := range bars {
		most = max(most, b.value)
	}
	for _, b := range bars {
		shape, text := "bar", ""
		switch b.peer {
		case "Limpet":
			shape, text = "ours", "our"
		case baseline:
			shape = "base"
		}
		var long float64
		if b.value > 0 {
			long = max(1, barWidth*b.value/most)
		}
		c.text(x, y+11, text, "start", b.peer)
		fmt.Fprintf(&c.body, `<rect class="%s" x="%d" y="%d" width="%.1f" height="%d" rx="2"/>`+"\n", shape, x+nameWidth, y+1, long, thick-4)
		c.text(x+nameWidth+int(math.Ceil(long))+6, y+11, text, "start", b.label)
		y += thick
	}
}

// A point of a line: what so many of something cost.
type point struct{ n, cost float64 }

// line draws a cell with a line, n growing tenfold by equal steps. Its height
// begins at 0, or small changes would look big. The line it is compared with may
// be nil.
func (c *chart) line(name, note string, points, beside []point) {
	x, y := c.begin(24+plotHeight+40, name, note)
	if len(points) == 0 {
		return
	}
	var most float64
	for _, p := range slices.Concat(points, beside) {
		most = max(most, p.cost)
	}
	const inset = 24 // half of a label
	left, right := math.Log(points[0].n), math.Log(points[len(points)-1].n)
	bottom := y + plotHeight
	at := func(p point) (x2, y2 int) {
		x2, y2 = x+inset, bottom
		if right > left {
			x2 += int((cellWidth - 2*inset) * (math.Log(p.n) - left) / (right - left))
		}
		if most > 0 {
			y2 -= int((plotHeight - 24) * p.cost / most)
		}
		return x2, y2
	}
	path := func(class string, points []point) {
		fmt.Fprintf(&c.body, `<polyline class="%s" points="`, class)
		for _, p := range points {
			x, y := at(p)
			fmt.Fprintf(&c.body, " %d,%d", x, y)
		}
		c.body.WriteString(`"/>` + "\n")
	}
	fmt.Fprintf(&c.body, `<line class="axis" x1="%d" y1="%d" x2="%d" y2="%[2]d"/>`+"\n", x, bottom, x+cellWidth)
	if beside != nil {
		path("baseline", beside)
	}
	path("line", points)
	for _, p := range points {
		x, y := at(p)
		fmt.Fprintf(&c.body, `<circle class="ours" cx="%d" cy="%d" r="4"/>`+"\n", x, y)
		c.text(x, y-10, "our", "middle", short(p.cost))
		c.text(x, bottom+16, "note", "middle", thousands(p.n))
	}
}

// text writes what needs no escapes.
func (c *chart) text(x, y int, class, anchor, text string) {
	fmt.Fprintf(&c.body, `<text class="%s" x="%d" y="%d" text-anchor="%s">%s</text>`+"\n", class, x, y, anchor, text)
}

// short is a figure with two or three digits.
func short(v float64) string {
	if v < 99.95 {
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return thousands(v)
}

// thousands is a whole number as people read it.
func thousands(v float64) string {
	s := strconv.FormatFloat(v, 'f', 0, 64)
	if len(s) > 3 {
		s = s[:len(s)-3] + "," + s[len(s)-3:]
	}
	return s
}
