// "Did you mean …?": the valid name that is nearest to what somebody typed.

/// Finds the valid name that a mistyped one probably stands for.
package enum NearestName {
    /// The first of `candidates` with the smallest edit distance to `name`. Nil where even that one is too far away:
    /// more than a third of the letters (at least two) would have to change.
    package static func find(_ name: String, among candidates: [String]) -> String? {
        let limit = max(2, name.utf8.count / 3)
        var best: (name: String, distance: Int)?
        for candidate in candidates {
            let distance = editDistance(name, candidate)
            if distance <= limit, distance < candidate.utf8.count, distance < best?.distance ?? Int.max {
                best = (candidate, distance)
            }
        }
        return best?.name
    }

    /// `Did you mean "NAME"?` and two spaces, or nothing where no name is near.
    package static func question(_ name: String, among candidates: [String], prefix: String = "") -> String {
        find(name, among: candidates).map { "Did you mean \"\(prefix)\($0)\"?  " } ?? ""
    }

    /// How many single-byte insertions, removals, replacements and swaps of neighbours turn one name into the other
    /// (optimal string alignment). Case counts as no difference. Names above 64 bytes count as infinitely far.
    static func editDistance(_ left: String, _ right: String) -> Int {
        let a = Array(left.lowercased().utf8)
        let b = Array(right.lowercased().utf8)
        guard a.count <= 64, b.count <= 64 else { return Int.max }
        var beforeLast = [Int](repeating: 0, count: b.count + 1)
        var last = Array(0...b.count)
        for i in 1..<(a.count + 1) {
            var row = [Int](repeating: i, count: b.count + 1)
            for j in 1..<(b.count + 1) {
                let replaced = last[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1)
                row[j] = min(replaced, last[j] + 1, row[j - 1] + 1)
                if i > 1, j > 1, a[i - 1] == b[j - 2], a[i - 2] == b[j - 1] {
                    row[j] = min(row[j], beforeLast[j - 2] + 1)
                }
            }
            beforeLast = last
            last = row
        }
        return last[b.count]
    }
}
