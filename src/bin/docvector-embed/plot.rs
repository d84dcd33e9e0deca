//! Draws a line through a few points as SVG. No crate does it: for one line and one axis of powers of two, the common
//! plotting crate would bring more code than this file has.

use std::fmt::Write as _;

/// The size of the picture, and the places of the axes.
const WIDTH: f64 = 800.0;
const HEIGHT: f64 = 480.0;
const LEFT: f64 = 90.0;
const RIGHT: f64 = 770.0;
const TOP: f64 = 60.0;
const BOTTOM: f64 = 410.0;

/// The fewest ticks of the vertical axis.
const MIN_TICKS: f64 = 5.0;

/// Points to draw. The horizontal axis has powers of two, the vertical one begins at 0.
pub(crate) struct Plot<'a> {
    pub(crate) title: &'a str,
    pub(crate) x_label: &'a str,
    pub(crate) y_label: &'a str,
    pub(crate) points: Vec<(f64, f64)>,
}

/// The ranges of the two axes, which give values their place in the picture.
struct Axes {
    /// The exponents of two at the left and the right end.
    first: f64,
    last: f64,
    /// The distance of the ticks on the vertical axis, and their number without 0.
    step: f64,
    steps: f64,
}

impl Axes {
    fn of(points: &[(f64, f64)]) -> Self {
        let logs = || points.iter().map(|(x, _)| x.log2());
        let (first, last) = (logs().fold(f64::MAX, f64::min).floor(), logs().fold(f64::MIN, f64::max).ceil());
        // Place a single point in the middle.
        let (first, last) = if first < last { (first, last) } else { (first - 1.0, last + 1.0) };
        let highest = points.iter().map(|(_, y)| *y).fold(0.0, f64::max);
        let step = tick_distance(highest);
        Self { first, last, step, steps: (highest / step).ceil().max(1.0) }
    }

    fn x(&self, value: f64) -> f64 {
        LEFT + (value.log2() - self.first) / (self.last - self.first) * (RIGHT - LEFT)
    }

    fn y(&self, value: f64) -> f64 {
        BOTTOM - value / (self.steps * self.step) * (BOTTOM - TOP)
    }

    /// Returns the values at the ticks of the horizontal axis.
    fn x_ticks(&self) -> impl Iterator<Item = f64> {
        (self.first as i32..=self.last as i32).map(|power| 2_f64.powi(power))
    }

    /// Returns the values at the ticks of the vertical axis.
    fn y_ticks(&self) -> impl Iterator<Item = f64> {
        let step = self.step;
        (0..=self.steps as u32).map(move |number| f64::from(number) * step)
    }
}

impl Plot<'_> {
    pub(crate) fn svg(&self) -> String {
        let axes = Axes::of(&self.points);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{HEIGHT}\" \
             viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"13\">\n\
             <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n"
        );
        self.draw_labels(&axes, &mut svg);
        draw_axes(&axes, &mut svg);
        self.draw_points(&axes, &mut svg);
        svg.push_str("</svg>\n");
        svg
    }

    /// Draws the title, the labels of the axes, and the numbers at the ticks.
    fn draw_labels(&self, axes: &Axes, svg: &mut String) {
        let mut text = |x: f64, y: f64, anchor: &str, more: &str, text: &str| {
            let text = escape_xml(text);
            push_line(
                svg,
                format_args!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\"{more}>{text}</text>"),
            );
        };
        text(WIDTH / 2.0, 32.0, "middle", " font-size=\"17\"", self.title);
        text((LEFT + RIGHT) / 2.0, 462.0, "middle", "", self.x_label);
        let (middle, edge) = (TOP.midpoint(BOTTOM), 22.0);
        text(edge, middle, "middle", &format!(" transform=\"rotate(-90 {edge} {middle})\""), self.y_label);
        for value in axes.y_ticks() {
            text(LEFT - 9.0, axes.y(value) + 4.5, "end", "", &value.to_string());
        }
        for value in axes.x_ticks() {
            text(axes.x(value), BOTTOM + 22.0, "middle", "", &value.to_string());
        }
    }

    /// Draws a line through the points, and a dot with a tooltip at each.
    fn draw_points(&self, axes: &Axes, svg: &mut String) {
        let place = |&(a, b): &(f64, f64)| format!("{:.1},{:.1}", axes.x(a), axes.y(b));
        let places = self.points.iter().map(place).collect::<Vec<_>>().join(" ");
        push_line(
            svg,
            format_args!("<polyline points=\"{places}\" fill=\"none\" stroke=\"#1f77b4\" stroke-width=\"2\"/>"),
        );
        for &(a, b) in &self.points {
            let name = escape_xml(&format!("{a}: {b:.0} {}", self.y_label));
            let place = format_args!("cx=\"{:.1}\" cy=\"{:.1}\"", axes.x(a), axes.y(b));
            push_line(svg, format_args!("<circle {place} r=\"4\" fill=\"#1f77b4\"><title>{name}</title></circle>"));
        }
    }
}

/// Draws the axes, their ticks, and the grid lines.
fn draw_axes(axes: &Axes, svg: &mut String) {
    let mut stroke = |x1: f64, y1: f64, x2: f64, y2: f64, color: &str| {
        let ends = format_args!("x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"");
        push_line(svg, format_args!("<line {ends} stroke=\"{color}\"/>"));
    };
    for value in axes.y_ticks() {
        stroke(LEFT - 5.0, axes.y(value), RIGHT, axes.y(value), "#dddddd");
    }
    for value in axes.x_ticks() {
        stroke(axes.x(value), BOTTOM, axes.x(value), BOTTOM + 5.0, "black");
    }
    stroke(LEFT, BOTTOM, RIGHT, BOTTOM, "black");
    stroke(LEFT, BOTTOM, LEFT, TOP, "black");
}

fn push_line(svg: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = writeln!(svg, "{text}");
}

/// Returns a round distance between ticks, small enough for [`MIN_TICKS`].
fn tick_distance(highest: f64) -> f64 {
    let rough = (highest / MIN_TICKS).max(1.0);
    let power = 10_f64.powf(rough.log10().floor());
    [1.0, 2.0, 5.0].into_iter().map(|digit| digit * power).rfind(|&step| step <= rough).unwrap_or(power)
}

/// Escapes a text for XML.
fn escape_xml(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn svg(points: &[(f64, f64)]) -> String {
        Plot { title: "<a> & b", x_label: "x", y_label: "tokens/s", points: points.to_vec() }.svg()
    }

    /// The values of an attribute of all elements of a name.
    fn values(svg: &str, element: &str, attribute: &str) -> Vec<f64> {
        let elements = svg.lines().filter(|line| line.starts_with(&format!("<{element} ")));
        let value = |line: &str| line.split(&format!(" {attribute}=\"")).nth(1)?.split('"').next()?.parse().ok();
        elements.filter_map(value).collect()
    }

    #[test]
    fn points_stand_where_they_should() {
        let svg = svg(&[(64.0, 1000.0), (128.0, 2000.0), (1024.0, 500.0)]);
        // 2000 is the top; each power of two takes a quarter.
        assert_eq!(values(&svg, "circle", "cx"), [90.0, 260.0, 770.0]);
        assert_eq!(values(&svg, "circle", "cy"), [235.0, 60.0, 322.5]);
        assert!(svg.contains("points=\"90.0,235.0 260.0,60.0 770.0,322.5\""), "{svg}");
        for label in [">64<", ">1024<", ">0<", ">2000<", ">tokens/s<", ">&lt;a&gt; &amp; b<"] {
            assert!(svg.contains(label), "{label:?} is not in {svg}");
        }
    }

    #[test]
    fn odd_points_stay_inside() {
        for points in
            [&[(256.0, 6000.0)][..], &[(1.0, 0.0)], &[(100.0, 7.5), (3000.0, 1e9)], &[(2.0, 1e-9), (3.0, 0.3)]]
        {
            let svg = svg(points);
            let inside =
                |values: Vec<f64>, low: f64, high: f64| values.iter().all(|value| (low..=high).contains(value));
            assert_eq!(values(&svg, "circle", "cx").len(), points.len(), "{svg}");
            assert!(inside(values(&svg, "circle", "cx"), LEFT, RIGHT), "{svg}");
            assert!(inside(values(&svg, "circle", "cy"), TOP, BOTTOM), "{svg}");
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
    }

    #[test]
    fn ticks_are_round() {
        for (highest, want) in [(6000.0, 1000.0), (24_999.0, 2000.0), (25_000.0, 5000.0), (0.0, 1.0), (9.0, 1.0)] {
            assert_eq!(tick_distance(highest), want, "{highest}");
        }
    }
}
