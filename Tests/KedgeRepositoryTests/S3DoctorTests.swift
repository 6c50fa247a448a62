// What the doctor of object stores finds out about good stores and bad ones, and that what a store keeps is read back.
import KedgeCore
import KedgeRepository
import KedgeTestSupport
import Testing

@Suite struct S3DoctorTests {
    private func error(_ body: () throws(KedgeError) -> Void) -> KedgeError? {
        do throws(KedgeError) {
            try body()
            return nil
        } catch {
            return error
        }
    }

    private func text(_ finding: StoreFinding) -> String {
        switch finding.verdict {
        case .good: "good"
        case .lacking: "lacking"
        case .broken: "broken"
        }
    }

    /// What the doctor says about a store with these habits, by what was tried.
    private func findings(
        _ keeping: S3Keeping = S3Keeping(), conditionalPut: Bool = true,
        _ change: (inout PaperObjectStore.Habits) -> Void = { _ in }
    ) throws -> [String: String] {
        let paper = try PaperObjectStore()
        change(&paper.habits)
        let store = S3Store(try paper.settings(prefix: "p"), conditionalPut: conditionalPut, keeping: keeping)
        let found = try S3Doctor(store, random: SeededRandom(seed: 1), time: SystemTimeSource()).run()
        #expect(paper.objects.isEmpty, "it leaves nothing behind")
        return Dictionary(found.map { ($0.what, text($0)) }, uniquingKeysWith: { first, _ in first })
    }

    @Test("a good store has nothing that is missing")
    func good() throws {
        let found = try findings()
        #expect(found.count == 9 && found.values.allSatisfy { $0 == "good" }, "\(found)")
    }

    @Test("each thing that a store lacks is found, and nothing else")
    func lacking() throws {
        func worse(_ found: [String: String]) -> [String: String] { found.filter { $0.value != "good" } }
        #expect(worse(try findings { $0.ignoresConditions = true }) == ["conditional put": "broken"])
        #expect(
            worse(try findings(conditionalPut: false) { $0.ignoresConditions = true }) == [
                "conditional put": "lacking"
            ])
        #expect(worse(try findings(conditionalPut: false)) == ["conditional put": "lacking"])
        // Whoever ignores ranges sends too much for the head of a large object as well.
        #expect(worse(try findings { $0.ignoresRanges = true })["ranges"] == "broken")
        #expect(worse(try findings { $0.listsBackwards = true }) == ["listings": "broken"])
        #expect(worse(try findings { $0.ignoresMD5 = true }) == ["checksums": "lacking"])
        #expect(worse(try findings { $0.versioning = "Enabled" }) == ["versioning": "lacking"])
        #expect(worse(try findings { $0.clockOffset = 120 }) == ["clock": "lacking"])
        let lock = S3Keeping(lock: S3Keeping.Lock(mode: .governance, days: 3))
        #expect(worse(try findings(lock)) == ["object lock": "broken"])
        #expect(worse(try findings(lock) { $0.hasLock = true }) == [:])
        let kept = S3Keeping(storageClass: "GLACIER_IR", encryption: .managedKey("key-1"))
        #expect(worse(try findings(kept)) == [:])
        #expect(worse(try findings(kept) { $0.ignoresStorageClass = true }) == ["keeping": "lacking"])
        #expect(worse(try findings(kept) { $0.ignoresEncryption = true }) == ["keeping": "broken"])
    }

    // MARK: - Reading back

    private static let wal: ObjectName = "main/wal/7/00000001/00000000/000000010000000000000005"

    @Test("what a store keeps is asked for with every object, and read back once")
    func readBack() throws {
        let paper = try PaperObjectStore()
        let keeping = S3Keeping(
            storageClass: "STANDARD_IA", encryption: .storeKeys, lock: S3Keeping.Lock(mode: .compliance, days: 30))
        let store = S3Store(try paper.settings(), conditionalPut: true, keeping: keeping, partBytes: 64 << 10)
        #expect(try store.put(Self.wal, ObjectBody([1]), .createOnly) == .created)
        #expect(try store.put("main/pack/00/0001", ObjectBody([1]), .createOnly) == .created)
        #expect(try store.put("main/lease/backup", ObjectBody([1]), .replace) == .created)
        let upload = try store.beginUpload("main/pack/00/0002", expectedBytes: 0)
        for _ in 0..<3 { try upload.append([UInt8](repeating: 7, count: 64 << 10)) }
        #expect(try upload.finish() == .created)
        // One look after the first, the status before and after the upload is completed.
        #expect(paper.requests.filter { $0.hasPrefix("GET") && $0.contains("/wal/") }.count == 1)
        #expect(paper.requests.filter { $0.hasPrefix("GET") && $0.contains("/0001") }.isEmpty)
        for name in [Self.wal.text, "main/pack/00/0001", "main/pack/00/0002"] {
            let headers = paper.objects[name]?.headers ?? [:]
            #expect(headers["x-amz-storage-class"] == "STANDARD_IA")
            #expect(headers["x-amz-server-side-encryption"] == "AES256")
            #expect(headers["x-amz-object-lock-mode"] == "COMPLIANCE")
            let until = headers["x-amz-object-lock-retain-until-date"].flatMap { Timestamp(record: $0) }
            let days = ((until?.microseconds ?? 0) - SystemTimeSource().now().microseconds) / 1_000_000
            #expect(abs(days - 30 * 86_400) < 60)
        }
        // What is replaced and removed all the time must not be locked.
        let lease = paper.objects["main/lease/backup"]?.headers ?? [:]
        #expect(lease["x-amz-storage-class"] == "STANDARD_IA" && lease["x-amz-object-lock-mode"] == nil)
    }

    @Test("a store that ignores encryption or a lock is refused, one that ignores the class is told about once")
    func ignored() throws {
        func outcome(
            _ keeping: S3Keeping, _ change: (inout PaperObjectStore.Habits) -> Void
        ) throws -> (error: KedgeError?, warnings: [String]) {
            let paper = try PaperObjectStore()
            change(&paper.habits)
            let warnings = Monitor([String]())
            let store = S3Store(
                try paper.settings(), conditionalPut: true, keeping: keeping,
                warn: { warning in warnings.update { $0.append(warning) } })
            let failure = error { () throws(KedgeError) in
                for number in 0..<3 {
                    _ = try store.put(
                        ObjectName("main/pack/00/\(number)") ?? Self.wal, ObjectBody([1]), .createOnly)
                }
            }
            return (failure, warnings.update { $0 })
        }
        let lock = S3Keeping.Lock(mode: .governance, days: 1)
        for keeping in [S3Keeping(encryption: .storeKeys), S3Keeping(encryption: .managedKey(nil))] {
            let (failure, _) = try outcome(keeping) { $0.ignoresEncryption = true }
            #expect(failure?.code == .configuration && failure?.detail?.contains("encrypt") == true)
        }
        let (unlocked, _) = try outcome(S3Keeping(lock: lock)) { $0.ignoresLock = true }
        #expect(unlocked?.code == .configuration && unlocked?.detail?.contains("lock") == true)
        let (none, warnings) = try outcome(S3Keeping(storageClass: "GLACIER_IR")) { $0.ignoresStorageClass = true }
        #expect(none == nil && warnings.count == 1 && warnings.first?.contains("STANDARD, not GLACIER_IR") == true)
        #expect(try outcome(S3Keeping()) { $0.ignoresEncryption = true }.error == nil)
    }

    @Test("differences are those of mode, key and time")
    func differences() {
        let now = Timestamp(secondsSince1970: 1_795_000_000)
        let keeping = S3Keeping(
            encryption: .managedKey("k"), lock: S3Keeping.Lock(mode: .compliance, days: 1))
        var good = [
            "x-amz-server-side-encryption": "aws:kms",
            "x-amz-server-side-encryption-aws-kms-key-id": "arn:aws:kms:eu:1:key/k",
            "x-amz-object-lock-mode": "COMPLIANCE",
            "x-amz-object-lock-retain-until-date": "\(now.adding(seconds: 86_400))",
        ]
        func count() -> Int { keeping.differences({ good[$0] }, of: Self.wal, storedAt: now).count }
        #expect(count() == 0)
        for (name, value) in [
            ("x-amz-server-side-encryption", "AES256"), ("x-amz-server-side-encryption-aws-kms-key-id", "other"),
            ("x-amz-object-lock-mode", "GOVERNANCE"),
            ("x-amz-object-lock-retain-until-date", "\(now.adding(seconds: 86_000))"),
            ("x-amz-object-lock-retain-until-date", "soon"),
        ] {
            let before = good[name]
            good[name] = value
            #expect(count() == 1, "\(name)")
            good[name] = before
        }
    }

    // MARK: - Removal under a lock

    @Test("what the store's lock keeps from being removed is told with its end, and keeps nothing else")
    func locked() throws {
        let until = SystemTimeSource().now().adding(seconds: 86_400)
        let paper = try PaperObjectStore { request, _ in
            let refusal = "<Error><Key>a</Key><Code>AccessDenied</Code></Error>"
            if request.method == "POST", request.target.contains("delete") {
                return .answer(200, body: Array("<DeleteResult>\(refusal)</DeleteResult>".utf8))
            }
            return request.method == "DELETE" && request.path.hasSuffix("/a")
                ? .answer(403, body: Array(refusal.utf8)) : nil
        }
        let keeping = S3Keeping(lock: S3Keeping.Lock(mode: .governance, days: 1))
        for removesInBatches in [true, false] {
            let store = S3Store(
                try paper.settings(), conditionalPut: true, keeping: keeping, removesInBatches: removesInBatches)
            paper.plant("a", [1])
            #expect(try store.remove(["a", "b"]).map(\.error.code) == [.permission])
            paper.plant("a", [1], headers: ["x-amz-object-lock-retain-until-date": "\(until.description.prefix(19))Z"])
            let failures = try store.remove(["a", "b"])
            #expect(failures.map(\.error.code) == [.locked])
            #expect(failures.first?.error.message.contains("until \(until.description.prefix(19))") == true)
        }
    }
}
