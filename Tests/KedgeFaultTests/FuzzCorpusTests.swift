// Proves that no parser traps, hangs or breaks one of its properties on what the fuzzer ever found worth keeping
// (scripts/fuzz.sh): every corpus goes through its own parser, in the soak tier through all the others too.
import KedgeCore
import KedgeFuzzTargets
import KedgeTestSupport
import Testing

@Suite struct FuzzCorpusTests {
    private static let directory =
        #filePath.split(separator: "/").dropLast(2).map { "/\($0)" }.joined() + "/Fuzzing/Corpus"

    /// The inputs of one corpus, a line each in hexadecimal.
    private static func corpus(of target: FuzzTarget) throws -> [[UInt8]] {
        let file = try FileDescriptor.open(RawPath("\(directory)/\(target.name)"), [.read])
        let text = String(decoding: try file.readAll(limit: 1 << 20), as: UTF8.self)
        return try text.split(separator: "\n").map { try #require([UInt8](hex: $0)) }
    }

    @Test("every target has a corpus, and accepts a seed: else it would prove nothing but refusals")
    func accepted() throws {
        for target in FuzzTarget.all {
            #expect(try !Self.corpus(of: target).isEmpty, "\(target.name)")
            #expect(target.seeds.contains { target.run($0) }, "every seed of \(target.name) is refused")
        }
        #expect(Set(FuzzTarget.all.map(\.name)).count == FuzzTarget.all.count)
    }

    @Test("what was found worth keeping harms no parser", arguments: FuzzTarget.all.map(\.name))
    func corpus(_ name: String) throws {
        let own = try #require(FuzzTarget.named(name))
        let inputs = try Self.corpus(of: own)
        for input in own.isSlow && !PostgresInstallation.soakIsEnabled ? Self.sample(inputs) : inputs { own.run(input) }
        guard PostgresInstallation.soakIsEnabled else { return }
        for target in FuzzTarget.all where target.name != name {
            for input in inputs where input.count <= target.maximumLength { target.run(input) }
        }
    }

    /// A few inputs that KEDGE_TEST_SEED chooses.
    private static func sample(_ inputs: [[UInt8]]) -> [[UInt8]] {
        let random = SeededRandom(seed: testSeed())
        return (0..<20).map { _ in inputs[random.next(below: inputs.count)] }
    }
}
