// What is fuzzed: every parser of bytes that come from a repository or from a data directory, by name.
//
// A target takes any bytes. It may refuse them (a `KedgeError` that is not `defect`); it must not trap, hang, take
// memory beyond the limits that Catalog/FORMAT.md states, or give back something that its writer would write otherwise.
// The corpus in Tests/Fuzzing/Corpus goes through the same targets in the quick tier.
import KedgeCore

/// One parser under test.
package struct FuzzTarget: Sendable {
    /// As `scripts/fuzz.sh` takes it, and the name of its corpus.
    package let name: String
    /// The longest input that makes sense, in bytes.
    package let maximumLength: Int
    /// Valid inputs to start from.
    package let seeds: [[UInt8]]
    /// Whether one input takes so long that the quick tier runs a sample of the corpus.
    package let isSlow: Bool
    private let parse: @Sendable ([UInt8]) throws(KedgeError) -> Void

    init(
        _ name: String, maximumLength: Int = 4096, isSlow: Bool = false, seeds: [[UInt8]] = [],
        _ parse: @escaping @Sendable ([UInt8]) throws(KedgeError) -> Void
    ) {
        self.name = name
        self.maximumLength = maximumLength
        self.isSlow = isSlow
        self.seeds = seeds
        self.parse = parse
    }

    /// Runs the parser on `bytes`. Returns whether it accepted them. Traps where a property does not hold.
    @discardableResult
    package func run(_ bytes: [UInt8]) -> Bool {
        do throws(KedgeError) {
            try parse(bytes)
            return true
        } catch {
            // An input is never to blame for a mistake of ours.
            require(error.code != .defect, "\(name): \(error)")
            return false
        }
    }

    /// Every target.
    package static let all: [FuzzTarget] =
        envelopeTargets + recordTargets + manifestTargets + walTargets + serverFileTargets + storeTargets + textTargets

    /// The target called `name`.
    package static func named(_ name: String) -> FuzzTarget? { all.first { $0.name == name } }
}

/// A property that any input must leave true.
func require(_ condition: Bool, _ what: @autoclosure () -> String) {
    if !condition { fatalError("property does not hold: \(what())") }
}

/// Takes numbers off the front of an input, for targets that read it as a list of instructions. Zero after its end.
struct Instructions {
    private var rest: ArraySlice<UInt8>

    init(_ bytes: [UInt8]) { rest = bytes[...] }

    var isAtEnd: Bool { rest.isEmpty }

    mutating func byte() -> UInt8 { rest.popFirst() ?? 0 }

    mutating func number(bytes count: Int) -> UInt64 {
        (0..<count).reduce(UInt64(0)) { number, _ in number << 8 | UInt64(byte()) }
    }

    /// The next `count` bytes, or as many as are left.
    mutating func bytes(_ count: Int) -> [UInt8] {
        let taken = Array(rest.prefix(count))
        rest = rest.dropFirst(count)
        return taken
    }
}
