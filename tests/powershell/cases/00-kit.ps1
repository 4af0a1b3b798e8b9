# What the cases of the scripts share: a rendered folder, a tenant, a run with everything it wrote.

$kit = @{
    TenantId = '11111111-2222-3333-4444-555555555555'; SmartHosts = @('mx1.gatepost.example', 'mx2.gatepost.example'); TlsDomain = 'mx1.gatepost.example'
    TlsSenderCertificateName = 'mail.contoso.com'; AcceptedDomains = @('contoso.com', 'mail.contoso.com', 'contoso.onmicrosoft.com'); CloudServicesMailEnabled = 'True'
    SecretHeaderName = 'X-Contoso-Gate'; LoopHeaderName = 'X-Contoso-Loop'; PilotGroup = 'pilot@contoso.com'; ExchangeEnvironmentName = 'O365Default'
}
# Values that must not be written anywhere but into rules.
$secretValue = 'S3cretGate0123456789abcdef'
$loopValue = 'L00pWord0123456789abcdef'
$oldSecret = 'OldS3cretGate9876543210'
$oldLoop = 'OldL00pWord9876543210'
$foreign = '99999999-8888-7777-6666-555555555555'

# Fills the templates in as render does, into a folder of its own, with the secrets beside them.
function New-Kit {
    param([hashtable]$Values = $kit, [string]$Folder = (New-WorkFolder), [string[]]$OldLoop = @(), [string[]]$OldSecret = @())
    foreach ($file in $files.Keys) {
        $text = [System.Text.Encoding]::ASCII.GetString($files[$file])
        foreach ($key in $Values.Keys) {
            $literal = (@($Values[$key]) | ForEach-Object { "'" + $_.Replace("'", "''") + "'" }) -join ', '
            $text = $text.Replace("'@$key@'", $literal)
        }
        [System.IO.File]::WriteAllText([System.IO.Path]::Combine($Folder, $file), $text)
    }
    Set-KitSecret -Folder $Folder -Values $Values -OldLoop $OldLoop -OldSecret $OldSecret
    $Folder
}

function Set-KitSecret {
    param([string]$Folder, [hashtable]$Values = $kit, [string]$Secret = $secretValue, [string]$Loop = $loopValue, [string[]]$OldLoop = @(), [string[]]$OldSecret = @())
    $path = [System.IO.Path]::Combine($Folder, 'gatepost-secrets.json')
    $text = ConvertTo-Json -InputObject ([ordered]@{ TenantId = $Values.TenantId; SecretHeaderValue = $Secret; SecretHeaderPrevious = @($OldSecret); LoopHeaderValue = $Loop; LoopHeaderPrevious = @($OldLoop) })
    [System.IO.File]::WriteAllText($path, $text)
    (Get-Item -LiteralPath $path).UnixFileMode = 'UserRead, UserWrite'
}

# The scripts that change a tenant, but for Confirm, which sets what it has just seen.
$changing = @('Install-GatepostConnector', 'Repair-GatepostConnector', 'Remove-GatepostConnector', 'Set-GatepostRollout', 'Update-GatepostSecret', 'Set-GatepostArcSealer', 'Set-GatepostEnhancedFiltering')

# One folder for all cases that write nothing into it: exports of the state go to a folder of the case.
$script:shared = $null
function Get-Kit {
    if ($null -eq $script:shared) { $script:shared = New-Kit }
    $script:shared
}

# The tenant of the kit, as it is before the first run.
function Add-Contoso { Add-StandInTenant -TenantId $kit.TenantId -AcceptedDomains $kit.AcceptedDomains -Groups 'pilot@contoso.com', 'second@contoso.com' -AppId 'app' }

# Runs a script and keeps what it wrote: Results, Warnings, Failed (the message it ended with, '' for none), Text (all streams as text).
function Invoke-Script {
    param([string]$Name, [hashtable]$With = @{}, [string]$Folder = (Get-Kit), [switch]$Preview)
    $given = @{}
    foreach ($key in $With.Keys) { $given[$key] = $With[$key] }
    if ($Preview) { $given['WhatIf'] = $true }
    if ($changing -contains $Name -and -not $given.ContainsKey('ExportFolder')) { $given['ExportFolder'] = New-WorkFolder }
    if ($Name -eq 'Remove-GatepostConnector' -and -not $Preview) { $given['Confirm'] = $false }
    $run = @{ Results = @(); Warnings = @(); Failed = ''; Text = ''; Folder = $given['ExportFolder'] }
    $wrote = New-Object System.Collections.ArrayList
    $Error.Clear()
    try { & ([System.IO.Path]::Combine($Folder, "$Name.ps1")) @given -Verbose *>&1 | ForEach-Object { [void]$wrote.Add($_) } } catch {
        $run.Failed = [string]$_.Exception.Message
        [void]$wrote.Add($_)
    }
    foreach ($one in $wrote) {
        if ($one -is [System.Management.Automation.WarningRecord]) { $run.Warnings += [string]$one }
        elseif ($one -isnot [System.Management.Automation.ErrorRecord] -and $one -isnot [System.Management.Automation.InformationalRecord] -and $one -isnot [System.Management.Automation.InformationRecord]) { $run.Results += $one }
    }
    $run.Text = (@($wrote) + @($Error) | ForEach-Object {
        if ($_ -is [System.Management.Automation.ErrorRecord]) { [string]$_.Exception.Message; [string]$_.TargetObject; $_.ScriptStackTrace } elseif ($_.PSObject.Properties['Action']) { ConvertTo-Json -InputObject $_ -Depth 6 -Compress } else { [string]$_ }
    }) -join "`n"
    $run
}

# Runs a script that must not fail.
function Invoke-Good {
    param([string]$Name, [hashtable]$With = @{}, [string]$Folder = (Get-Kit), [switch]$Preview)
    $run = Invoke-Script -Name $Name -With $With -Folder $Folder -Preview:$Preview
    if ($run.Failed) { throw "expected: $Name succeeds`nfound: $($run.Failed)" }
    $run
}

# An installed tenant, with a log of calls that begins after it.
function Add-Installed {
    param([hashtable]$With = @{})
    $tenant = Add-Contoso
    $null = Invoke-Good 'Install-GatepostConnector' -With $With
    Clear-StandInCall
    $tenant
}

# 'Type Name: Action' of each result.
function Get-Action { param($Run) @($Run.Results | ForEach-Object { "$($_.Name): $($_.Action)" }) }

# The calls that changed the tenant, as text: name and parameters, without those that every call has.
function Get-Change {
    @(Get-StandInCall -Changes | ForEach-Object {
        $call = $_
        $parameters = @($call.Parameters.Keys | Where-Object { 'Confirm', 'ErrorAction' -notcontains $_ } | Sort-Object)
        "$($call.Cmdlet) -$($parameters -join ' -')"
    })
}
function Get-RightChange { @(Get-StandInCall -Changes | Where-Object { $_.Outcome -eq 'Done' } | ForEach-Object { $_.Cmdlet }) }
