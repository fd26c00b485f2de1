// Package chart draws bars and lines as an SVG that fits both of GitHub's themes, for what
// the programs in internal print into the README.
package chart

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
	topMargin  = 36
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

// A Chart is an SVG that grows downwards, cell by cell, three of them side by side. The zero
// value is empty.
type Chart struct {
	body bytes.Buffer
	y    int // of the row's top, below topMargin
	cell int // of the row
	row  int // its height
}

// SVG returns the chart as a file. title is for those who don't see it.
func (c *Chart) SVG(title string) []byte {
	c.wrap()
	var out bytes.Buffer
	height := topMargin + c.y
	fmt.Fprintf(&out, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%[1]d" height="%d" role="img">`+"\n", chartWidth, height, height)
	fmt.Fprintf(&out, "<title>%s</title>\n%s", title, style)
	fmt.Fprintf(&out, `<rect class="card" x="0.5" y="0.5" width="%d" height="%d" rx="8"/>`+"\n", chartWidth-1, height-1)
	out.Write(c.body.Bytes())
	out.WriteString("</svg>\n")
	return out.Bytes()
}

// Heading begins a part of the chart.
func (c *Chart) Heading(title, note string) {
	c.wrap()
	if c.y > 0 {
		c.y += 18
	}
	c.text(margin, topMargin+c.y, "title", "start", title)
	c.text(margin, topMargin+c.y+20, "note", "start", note)
	c.y += 52
}

// begin begins a cell of this height and returns where.
func (c *Chart) begin(height int, name, note string) (x, y int) {
	if c.cell == columns {
		c.wrap()
	}
	x, y = margin+c.cell*(cellWidth+cellGap), topMargin+c.y
	c.text(x, y, "name", "start", name)
	c.text(x, y+16, "note", "start", note)
	c.cell++
	c.row = max(c.row, height)
	return x, y + 24
}

// wrap ends a row of cells.
func (c *Chart) wrap() {
	c.y += c.row
	c.cell, c.row = 0, 0
}

// A Bar is one row of a cell.
type Bar struct {
	Name  string
	Value float64
	Label string // of the value
	Kind  Kind
}

// A Kind is the colour of a bar.
type Kind int

const (
	Other Kind = iota
	Base       // what the others are compared with
	Ours
)

// Bars draws a cell of bars, the longest of them as long as can be.
func (c *Chart) Bars(name, note string, bars []Bar) {
	x, y := c.begin(24+thick*len(bars)+26, name, note)
	var most float64
	for _, b := range bars {
		most = max(most, b.Value)
	}
	for _, b := range bars {
		shape := [...]string{Other: "bar", Base: "base", Ours: "ours"}[b.Kind]
		text := ""
		if b.Kind == Ours {
			text = "our"
		}
		var long float64
		if b.Value > 0 {
			long = max(1, barWidth*b.Value/most)
		}
		c.text(x, y+11, text, "start", b.Name)
		fmt.Fprintf(&c.body, `<rect class="%s" x="%d" y="%d" width="%.1f" height="%d" rx="2"/>`+"\n", shape, x+nameWidth, y+1, long, thick-4)
		c.text(x+nameWidth+int(math.Ceil(long))+6, y+11, text, "start", b.Label)
		y += thick
	}
}

// A Point is one of a line.
type Point struct{ X, Y float64 }

// inset is half of a label's width.
const inset = 24

// Line draws a cell with a line and the figure of each point, X growing tenfold by equal
// steps. Its height begins at 0, or small changes would look big. The line it is compared
// with may be nil.
func (c *Chart) Line(name, note string, points, beside []Point) {
	x, y := c.begin(24+plotHeight+40, name, note)
	if len(points) == 0 {
		return
	}
	p := newPlot(x, y, math.Log, points, beside)
	c.plot(p, points, beside)
	for _, point := range points {
		x, y := p.at(point)
		fmt.Fprintf(&c.body, `<circle class="ours" cx="%d" cy="%d" r="4"/>`+"\n", x, y)
		c.text(x, y-10, "our", "middle", Short(point.Y))
		c.text(x, p.bottom+16, "note", "middle", Thousands(point.X))
	}
}

// Curve draws a cell with a line of many points, X growing by equal steps, and says where
// the axes end. The line it is compared with may be nil.
func (c *Chart) Curve(name, note, unit string, points, beside []Point) {
	x, y := c.begin(24+plotHeight+40, name, note)
	if len(points) == 0 {
		return
	}
	p := newPlot(x, y, func(x float64) float64 { return x }, points, beside)
	c.plot(p, points, beside)
	c.text(x, p.bottom-plotHeight+11, "note", "start", Short(p.most))
	c.text(x+inset, p.bottom+16, "note", "middle", Thousands(points[0].X))
	c.text(x+cellWidth-inset, p.bottom+16, "note", "middle", Thousands(points[len(points)-1].X)+" "+unit)
}

// A plot turns points into places.
type plot struct {
	x, bottom   int
	scale       func(float64) float64 // of the horizontal axis
	left, right float64
	most        float64
}

func newPlot(x, y int, scale func(float64) float64, points, beside []Point) *plot {
	p := &plot{x: x, bottom: y + plotHeight, scale: scale, left: scale(points[0].X), right: scale(points[len(points)-1].X)}
	for _, point := range slices.Concat(points, beside) {
		p.most = max(p.most, point.Y)
	}
	return p
}

func (p *plot) at(point Point) (x, y int) {
	x, y = p.x+inset, p.bottom
	if p.right > p.left {
		x += int((cellWidth - 2*inset) * (p.scale(point.X) - p.left) / (p.right - p.left))
	}
	if p.most > 0 {
		y -= int((plotHeight - 24) * point.Y / p.most)
	}
	return x, y
}

func (c *Chart) plot(p *plot, points, beside []Point) {
	path := func(class string, points []Point) {
		fmt.Fprintf(&c.body, `<polyline class="%s" points="`, class)
		for _, point := range points {
			x, y := p.at(point)
			fmt.Fprintf(&c.body, " %d,%d", x, y)
		}
		c.body.WriteString(`"/>` + "\n")
	}
	fmt.Fprintf(&c.body, `<line class="axis" x1="%d" y1="%d" x2="%d" y2="%[2]d"/>`+"\n", p.x, p.bottom, p.x+cellWidth)
	if beside != nil {
		path("baseline", beside)
	}
	path("line", points)
}

// text writes what needs no escapes.
func (c *Chart) text(x, y int, class, anchor, text string) {
	fmt.Fprintf(&c.body, `<text class="%s" x="%d" y="%d" text-anchor="%s">%s</text>`+"\n", class, x, y, anchor, text)
}

// Short returns a figure with two or three digits.
func Short(v float64) string {
	if v < 99.95 {
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return Thousands(v)
}

// Thousands returns a whole number as people read it.
func Thousands(v float64) string {
	s := strconv.FormatFloat(v, 'f', 0, 64)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
