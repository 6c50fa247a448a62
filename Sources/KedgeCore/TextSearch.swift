// A text in a text. The standard library's own way is part of its regular expressions, which would be linked in as a
// whole and set up at every start (docs/decisions/0001), so the product is compiled without them.

extension String {
    /// Whether `part` occurs in it, byte for byte.
    package func contains(_ part: String) -> Bool { self[...].contains(part) }
}

extension Substring {
    /// Whether `part` occurs in it, byte for byte.
    package func contains(_ part: String) -> Bool {
        let (text, part) = (Array(utf8), Array(part.utf8))
        guard part.count <= text.count else { return false }
        return (0...text.count - part.count).contains { text[$0..<$0 + part.count].elementsEqual(part) }
    }
}
