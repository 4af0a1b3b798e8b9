# What holds for all scripts of a folder together: the common region, the tokens.

$script:RegionStart = '#region Common'
$script:RegionEnd = '#endregion Common'

# The common region of a script, byte for byte; nothing when it has none.
function Get-CommonRegion {
    param([string]$Text)
    $start = $Text.IndexOf($script:RegionStart)
    $end = $Text.IndexOf($script:RegionEnd)
    if ($start -ge 0 -and $end -gt $start) { $Text.Substring($start, $end + $script:RegionEnd.Length - $start) }
}

function Test-InRegion {
    param($Node)
    $start = $script:Script.Text.IndexOf($script:RegionStart)
    $end = $script:Script.Text.IndexOf($script:RegionEnd)
    $start -ge 0 -and $Node.Extent.StartOffset -ge $start -and $Node.Extent.EndOffset -le $end
}

# -Files: name -> bytes. Findings across files.
function Get-FolderFinding {
    param([Parameter(Mandatory = $true)][System.Collections.IDictionary]$Files)
    $common = $null
    $owner = $null
    $tokens = @{}
    foreach ($name in @($Files.Keys | Sort-Object)) {
        $text = [System.Text.Encoding]::UTF8.GetString($Files[$name])
        foreach ($match in [regex]::Matches($text, "'@(\w+)@'")) { $tokens[$match.Groups[1].Value] = $true }
        $region = Get-CommonRegion -Text $text
        if ($null -eq $region) { [pscustomobject]@{ Script = $name; Rule = 'Region'; Line = 1; Message = "no part between '$script:RegionStart' and '$script:RegionEnd'" }; continue }
        if ($null -eq $common) { $common = $region; $owner = $name; continue }
        if ($region -cne $common) {
            $left = $common -split "`r?`n"
            $right = $region -split "`r?`n"
            $at = 0
            while ($at -lt $left.Count -and $at -lt $right.Count -and $left[$at] -ceq $right[$at]) { $at++ }
            [pscustomobject]@{ Script = $name; Rule = 'Region'; Line = 1; Message = "the common region differs from that of $owner in its line $($at + 1)" }
        }
    }
    foreach ($token in @($script:TokenKind.Keys)) { if (-not $tokens.ContainsKey($token)) { [pscustomobject]@{ Script = '(all)'; Rule = 'Token'; Line = 1; Message = "no script has the token '@$token@'" } } }
}
