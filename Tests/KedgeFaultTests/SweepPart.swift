// Sweeps of every point take long; `KEDGE_TEST_PART=2/8` takes the second eighth of the points.
import Glibc

/// Which points of a sweep are tried in this run.
enum SweepPart {
    /// The part's number, from 0, and how many there are: all in one without the variable.
    private static let part: (number: Int, count: Int) = {
        let words = getenv("KEDGE_TEST_PART").map { String(cString: $0) }?.split(separator: "/").compactMap { Int($0) }
        guard let words, words.count == 2, words[1] > 0, (1...words[1]).contains(words[0]) else { return (0, 1) }
        return (words[0] - 1, words[1])
    }()

    /// Of `points` those of this part.
    static func filter(_ points: [Int]) -> [Int] { points.filter { $0 % part.count == part.number } }

    static var isAll: Bool { part.count == 1 }
}
