# Cases and what they may say: Test-Case registers, Invoke-Bench runs them all and writes one line for each.

Set-StrictMode -Version 2.0
$script:Cases = New-Object System.Collections.Generic.List[object]
$script:Templates = ''
$script:Work = ''

function Initialize-Bench {
    param([string]$Templates, [string]$Work)
    $script:Templates = $Templates
    if (-not $Work) { $Work = Join-Path ([System.IO.Path]::GetTempPath()) ('gatepost-ps-' + [guid]::NewGuid().ToString('N')) }
    [void][System.IO.Directory]::CreateDirectory($Work)
    $script:Work = $Work
}

# A case: its name is a sentence; it fails when its block throws.
function Test-Case {
    param([string]$Name, [scriptblock]$Block, $With = $null)
    $script:Cases.Add(@{ Name = $Name; Block = $Block; With = $With })
}

# Runs the cases whose names are like -Name; gives the number of failed ones.
function Invoke-Bench {
    param([string]$Name, [string]$Report)
    $lines = New-Object System.Collections.Generic.List[string]
    $failed = 0
    $run = 0
    $all = [System.Diagnostics.Stopwatch]::StartNew()
    foreach ($case in $script:Cases) {
        if ($case.Name -notlike $Name) { continue }
        $run++
        $watch = [System.Diagnostics.Stopwatch]::StartNew()
        $text = ''
        try {
            Reset-StandIn
            $null = & $case.Block $case.With
        } catch {
            $failed++
            $text = [string]$_.Exception.Message
            if ($text -notmatch '^expected: ') { $text += "`n" + $_.ScriptStackTrace }
            [Console]::Out.WriteLine("FAILED $($case.Name)`n    " + ($text -replace "`n", "`n    "))
        }
        $lines.Add((ConvertTo-Json -Compress -InputObject ([ordered]@{ case = $case.Name; failed = $text; ms = [int]$watch.ElapsedMilliseconds })))
    }
    Reset-StandIn
    [Console]::Out.WriteLine("$run cases, $failed failed, $([math]::Round($all.Elapsed.TotalSeconds, 1)) s")
    if ($Report) { [System.IO.File]::WriteAllLines($Report, $lines) }
    $failed
}

function Assert-That {
    param($Condition, [string]$What)
    if (-not $Condition) { throw "expected: $What" }
}

# Compares as text, so that lists and objects show themselves in the failure.
function Assert-Equal {
    param($Actual, $Wanted, [string]$What)
    $one = (@($Actual) | ForEach-Object { [string]$_ }) -join "`n"
    $two = (@($Wanted) | ForEach-Object { [string]$_ }) -join "`n"
    if ($one -cne $two) { throw "expected: $What`nwanted: $two`nfound:  $one" }
}

# The block fails, and says something like this (a regular expression).
function Assert-Fail {
    param([scriptblock]$Block, [string]$Like, [string]$What)
    try { $null = & $Block } catch {
        if ($_.Exception.Message -notmatch $Like) { throw "expected: $What`nwanted a failure like: $Like`nfound: $($_.Exception.Message)" }
        return
    }
    throw "expected: $What`nwanted a failure like: $Like`nnothing failed"
}

function Get-TemplateFolder { $script:Templates }

# A new empty folder for one case.
function New-WorkFolder {
    $path = Join-Path $script:Work ([guid]::NewGuid().ToString('N'))
    [void][System.IO.Directory]::CreateDirectory($path)
    $path
}

Export-ModuleMember -Function '*-*'
