// Proves for every kind of object and every kind of damage that no command serves or restores what is damaged, and
// holds docs/damage.md to what the commands say. The quick tier takes a few places, the soak tier many more that
// KEDGE_TEST_SEED chooses; KEDGE_TEST_WRITE=1 with KEDGE_TEST_SOAK=1 writes the page anew.
import Glibc
import KedgeCatalog
import KedgeCodec
import KedgeCore
import KedgeRepository
import KedgeTestSupport
import Testing

/// What is done to one object.
enum Damage: String, CaseIterable {
    case flipped = "a bit is flipped"
    case cut = "cut short"
    case emptied = "emptied"
    case lengthened = "bytes added"
    case gone = "gone"
    case exchanged = "exchanged with another of its kind"
    case older = "replaced by an older one"
    case fromOtherCluster = "taken from another cluster"
    case fromOtherRepository = "taken from another repository"
    case otherCipher = "sealed with the other cipher"
}

@Suite(
    .serialized,
    .enabled(
        if: !PostgresInstallation.serversAreEnabled || PostgresInstallation.soakIsEnabled,
        "the quick tier tries the same places"))
struct DamageTableTests {
    private static let isSoak = PostgresInstallation.soakIsEnabled

    @Test("nothing damaged is served, and docs/damage.md says what notices it", arguments: [true, false])
    func table(encrypted: Bool) throws {
        let sample = try DamageSample(encrypted: encrypted)
        let others = (try DamageSample(encrypted: encrypted, seed: 2), try DamageSample(encrypted: !encrypted))
        let commands = try DamageCommands(sample)
        // The quick tier tries the same places every time: the page must have them all.
        let random = SeededRandom(seed: Self.isSoak ? testSeed() : 1)
        var rows: [DamagePage.Row] = []
        for kind in DamagedKind.allCases {
            guard let name = sample.name(kind) else { continue }
            commands.expectUndamaged(kind)
            for damage in Damage.allCases {
                let variants = try Self.variants(damage, kind, name, sample, others, random)
                guard !variants.isEmpty else { continue }
                var cells = [Set<String>](repeating: [], count: DamageCommands.columns.count)
                let verified = random.next(below: variants.count)
                for (number, bytes) in variants.enumerated() {
                    let store = sample.store.copy()
                    if let bytes { store.plant(name, bytes) } else { _ = try store.remove([name]) }
                    let isVerified = number == verified || Self.isSoak && number % 30 == 0
                    for (index, cell) in try commands.run(kind, on: store, verifying: isVerified).enumerated() {
                        if let cell { cells[index].insert(cell) }
                    }
                }
                rows.append(DamagePage.Row(heads: [kind.rawValue, damage.rawValue], cells: cells))
            }
        }
        try DamagePage.hold(
            encrypted ? "encrypted" : "plain", ["object", "damage"] + DamageCommands.columns, rows,
            isWhole: false)
    }

    @Test("what concerns several objects at once", arguments: [true, false])
    func wholes(encrypted: Bool) throws {
        let sample = try DamageSample(encrypted: encrypted)
        let twin = try DamageSample(encrypted: !encrypted)
        let commands = try DamageCommands(sample)
        commands.expectUndamaged(.segment)
        let newest = DamageSample.labels[1]
        let changes: [(String, (MemoryStore) throws -> Void)] = [
            ("the directories of two clusters exchanged", { try Self.exchange("main", "other", $0) }),
            ("another cluster's directory in its place", { try Self.exchange("main", "other", $0, bothWays: false) }),
            ("every object sealed with the other cipher", { try Self.replace(all: twin.store, in: $0) }),
            ("rolled back to before the newest backup", { try Self.rollBack($0) }),
            ("the newest backup removed, with all its objects", { try Self.remove($0) { $0.contains(newest) } }),
            ("the newest WAL removed", { try Self.remove($0) { $0.contains("00000002/00000000") } }),
            ("a segment in the middle removed", { try Self.remove($0) { $0.hasSuffix("000000010000000000000007") } }),
            ("all key slots removed", { try Self.remove($0) { $0.hasPrefix("key/") } }),
            ("the newest registration removed", { try Self.remove($0) { $0 == "main/system/7" } }),
        ]
        var rows: [DamagePage.Row] = []
        for (what, change) in changes where encrypted || !what.contains("key slots") {
            let store = sample.store.copy()
            try change(store)
            let answers = try commands.run(.segment, on: store)
            rows.append(DamagePage.Row(heads: [what], cells: answers.map { answer in Set([answer].compactMap { $0 }) }))
        }
        try DamagePage.hold(
            encrypted ? "encrypted wholes" : "plain wholes", ["what was done"] + DamageCommands.columns, rows,
            isWhole: true)
    }

    // MARK: - Damages

    /// The bytes that the object has afterwards; nil for one that is gone.
    private static func variants(
        _ damage: Damage, _ kind: DamagedKind, _ name: ObjectName, _ sample: DamageSample,
        _ others: (same: DamageSample, otherCipher: DamageSample), _ random: SeededRandom
    ) throws -> [[UInt8]?] {
        let bytes = try sample.store.readAll(name, limit: 1 << 30)
        let count = bytes.count
        func object(_ name: ObjectName?, of sample: DamageSample) throws -> [[UInt8]?] {
            guard let name else { return [] }
            return [try sample.store.readAll(name, limit: 1 << 30)]
        }
        // A few that are drawn; in the soak tier every place of what is small, and of the rest both ends.
        func places(_ known: [Int], _ drawn: Int) -> [Int] {
            let sampled = Set(known + (0..<drawn).map { _ in random.next(below: count) })
            guard isSoak else { return sampled.filter { $0 < count }.sorted() }
            let thorough = (0..<40).map { _ in random.next(below: count) }
            return Set((count <= 250 ? Array(0..<count) : Array(0..<120) + Array(count - 80..<count)) + thorough)
                .sorted()
        }
        switch damage {
        case .flipped:
            return places([8, count - 1], 2).map { place in
                var changed = bytes
                changed[place] ^= 1 << UInt8(random.next(below: 8))
                return changed
            }
        case .cut:
            return places([count - 1], 1).filter { $0 > 0 && ($0 % 4 == 3 || !isSoak) }.map { Array(bytes.prefix($0)) }
        case .emptied: return [[]]
        case .lengthened:
            let longer: [[UInt8]?] = [bytes + [0], bytes + bytes.suffix(64), bytes + bytes]
            return isSoak ? longer : [longer[random.next(below: 3)]]
        case .gone: return [nil]
        case .exchanged:
            let other = sample.name(kind, 1)
            return other == name ? [] : try object(other, of: sample)
        case .older: return sample.olderLeases[name].map { [$0] } ?? []
        case .fromOtherCluster:
            return name.text.hasPrefix("main/") ? try object(sample.name(kind, cluster: "other"), of: sample) : []
        case .fromOtherRepository: return kind == .feature ? [] : try object(others.same.name(kind), of: others.same)
        case .otherCipher:
            return name.text.hasPrefix("main/") ? try object(others.otherCipher.name(kind), of: others.otherCipher) : []
        }
    }

    private static func exchange(_ one: String, _ other: String, _ store: MemoryStore, bothWays: Bool = true) throws {
        let before = try store.names.map { ($0, try store.readAll($0, limit: 1 << 30)) }
        try remove(store) { $0.hasPrefix(one + "/") || (bothWays && $0.hasPrefix(other + "/")) }
        for (name, bytes) in before {
            let parts = name.text.split(separator: "/", maxSplits: 1)
            if parts[0] == other, let name = ObjectName("\(one)/\(parts[1])") { store.plant(name, bytes) }
            if bothWays, parts[0] == one, let name = ObjectName("\(other)/\(parts[1])") { store.plant(name, bytes) }
        }
    }

    /// Every object of a cluster becomes its twin, which is whole but for the cipher.
    private static func replace(all twins: MemoryStore, in store: MemoryStore) throws {
        for name in twins.names where name.text.hasPrefix("main/") {
            store.plant(name, try twins.readAll(name, limit: 1 << 30))
        }
    }

    /// What the repository held when only the older backup and its WAL were there.
    private static func rollBack(_ store: MemoryStore) throws {
        let since = DamageSample.labels.dropFirst() + DamageSample.running
        try remove(store) { name in
            name.hasPrefix("main/")
                && (since.contains { name.contains($0) } || name.contains("/lease/") || name.contains("/00000002/")
                    || name.contains("/history/") || name.contains("000008") || name.contains("000009"))
        }
    }

    private static func remove(_ store: MemoryStore, where matches: (String) -> Bool) throws {
        _ = try store.remove(store.names.filter { matches($0.text) })
    }
}
